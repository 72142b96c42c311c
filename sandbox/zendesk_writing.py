"""What Zendesk does when users, organizations and tickets are written: one record at a time; `zendesk_jobs.py` does many.

Written from developer.zendesk.com (users, user identities, organizations, tickets, rate limits, idempotency). Not said there, and
decided here: a deleted user is not found by PUT and DELETE; a requester of tickets that are not closed cannot be deleted (a help
page says so, in words of its own); a safe update compares whole seconds, as `updated_at` has no others.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

from sandbox.clock import SandboxClock
from sandbox.dialect import RollingWindow
from sandbox.table import Row, Table

STATUSES = ("new", "open", "pending", "hold", "solved", "closed")
_PRIORITIES = (None, "low", "normal", "high", "urgent")
_TYPES = (None, "problem", "incident", "question", "task")
_WRITABLE: Mapping[str, frozenset[str]] = {
    "users": frozenset({"name", "phone", "organization_id", "external_id", "locale", "time_zone", "tags", "role", "verified", "suspended"}),
    "organizations": frozenset({"name", "domain_names", "external_id", "tags"}),
    "tickets": frozenset({"subject", "priority", "status", "type", "requester_id", "assignee_id", "group_id", "organization_id", "external_id", "tags", "due_at"}),
}  # fmt: skip
_PER_USER, _PER_TICKET, _PER_ACCOUNT = (5, 60.0), (30, 600.0), (100, 60.0)  # updates in so many seconds


class Refused(Exception):
    """What Zendesk answers instead of doing it; a body that is text goes as plain text."""

    def __init__(self, status: int, body: Row | str, *, wait: float = 0.0) -> None:
        super().__init__(str(status))
        self.status, self.body, self.wait = status, body, wait

    @property
    def details(self) -> str:
        """The words of the first problem."""
        if isinstance(self.body, str):
            return self.body
        told = next(iter((self.body.get("details") or {}).values()), None)
        return str(told[0]["description"] if told else self.body.get("description", ""))


class Writing:
    """
    Args:
        tables: by the objects' names.
        blank: makes the row of a new record of an object from its id.
        alive: tells what is not deleted.
        delete: deletes an object's record softly.
        merged: told of the user who is gone and the one who lives on.
    """

    def __init__(
        self, tables: Mapping[str, Table[Any]], clock: SandboxClock, *, blank: Callable[[str, int], Row],
        alive: Callable[[Row], bool], delete: Callable[[str, str], bool], agent: int,
        merged: Callable[[Row, Row], None],
    ) -> None:  # fmt: skip
        self._tables, self._clock, self._blank, self._alive, self._delete, self._agent = (
            tables,
            clock,
            blank,
            alive,
            delete,
            agent,
        )
        self._merged = merged
        self._ids = count((1 << 33) + 1)
        self.identities: dict[int, list[Row]] = {}  # by user: the addresses besides the primary one
        self._limits: dict[tuple[str, str], RollingWindow] = {}

    # ---- what may be asked ----

    def find(self, kind: str, id: str) -> Row:
        row = self._tables[kind].get(id)
        if row is None or not self._alive(row):
            raise Refused(404, {"error": "RecordNotFound", "description": "Not found"})
        return row

    def create(self, kind: str, said: Row) -> Row:
        if kind == "tickets":
            return self._create_ticket(said)
        id = next(self._ids)
        row = {**self._blank(kind, id), "created_at": self._now()}
        if not str(said.get("name") or "").strip():
            raise invalid("name", "Name: cannot be blank", "BlankValue")
        self._check(kind, row, said)
        if kind == "users":
            row["email"] = said["email"].lower() if said.get("email") else None
        return self._saved(kind, row, said)

    def update(self, kind: str, id: str, said: Row) -> Row:
        row = self.find(kind, id)
        if "name" in said and not str(said["name"] or "").strip():
            raise invalid("name", "Name: cannot be blank", "BlankValue")
        if kind == "tickets":
            self._may_update(row, said)
        self._check(kind, row, said)
        if kind == "users" and said.get("email"):
            self._add_address(row, said["email"].lower())
        return self._saved(kind, row, said)

    def create_or_update(self, said: Row) -> tuple[Row, bool]:
        """Return the user with that external id or e-mail address, and whether they are new."""
        found = None
        if said.get("external_id"):
            wanted = str(said["external_id"]).lower()
            found = next((each for each in self._users() if str(each["external_id"] or "").lower() == wanted), None)
        if found is None and said.get("email"):
            found = self._owner(said["email"].lower())
        if found is None:
            return self.create("users", said), True
        return self.update("users", str(found["id"]), said), False

    def delete(self, kind: str, id: str) -> Row:
        row = self.find(kind, id)
        if kind == "users":
            waiting = [each for each in self._tickets_of(row["id"]) if each["status"] != "closed"]
            if waiting:
                words = f"{row['name']} is requester on {len(waiting)} ticket(s) that are not closed."
                raise invalid("base", words, "InvalidValue")
        if kind == "organizations":
            for user in self._tables["users"].having("organization_id", [row["id"]]):
                self._tables["users"].put(str(user["id"]), {**user, "organization_id": None})
        self._delete(kind, id)
        return self._tables[kind].get(id) or row

    def merge(self, loser: str, winner: str) -> Row:
        """Give a user's tickets and addresses to another one."""
        gone, kept = self.find("users", loser), self.find("users", winner)
        if gone["role"] != "end-user" or kept["role"] != "end-user" or gone["id"] == kept["id"]:
            raise invalid("base", "Base: these users cannot be merged", "InvalidValue")
        for ticket in self._tickets_of(gone["id"]):
            self._tables["tickets"].put(str(ticket["id"]), {**ticket, "requester_id": kept["id"]})
        addresses = [
            *([gone["email"]] if gone["email"] else []),
            *(each["value"] for each in self.identities.pop(gone["id"], [])),
        ]
        self._tables["users"].put(loser, {**gone, "email": None, "active": False, "updated_at": self._now()})
        for address in addresses:
            self._add_address(kept, address)
        row = self._saved("users", kept, {})
        self._merged(gone, row)
        return row

    def addresses(self, row: Row) -> list[Row]:
        """Return a user's e-mail identities, the primary one first."""
        primary = {
            "id": row["id"] * 10,
            "user_id": row["id"],
            "type": "email",
            "value": row["email"],
            "primary": True,
            "verified": True,
        }
        return [*([primary] if row["email"] else []), *self.identities.get(row["id"], [])]

    def make_primary(self, id: str, identity: int) -> list[Row]:
        row = self.find("users", id)
        others = self.identities.get(row["id"], [])
        if (chosen := next((each for each in others if each["id"] == identity), None)) is not None:
            chosen["value"], row["email"] = row["email"], chosen["value"]
            self._saved("users", row, {})
        elif identity != row["id"] * 10:
            raise Refused(404, {"error": "RecordNotFound", "description": "Not found"})
        return self.addresses(row)

    def count(self, kind: str, id: str) -> None:
        """Count an update against the limit of its record (and, for tickets, of the account)."""
        if kind == "users":
            words = "You have exceeded the rate limit for updating a single unique user. Please try again later."
            self._limit((kind, id), _PER_USER, words)
        elif kind == "tickets":
            words = "You have exceeded the rate limit for updating a single unique ticket. Please try again later."
            self._limit((kind, id), _PER_TICKET, words)
            self._limit((kind, ""), _PER_ACCOUNT, "Number of allowed ticket updates per minute exceeded")

    # ---- what is looked at before ----

    def _limit(self, key: tuple[str, str], limit: tuple[int, float], words: str) -> None:
        window = self._limits.setdefault(key, RollingWindow(self._clock, limit=limit[0], period=limit[1]))
        if not window.take():
            raise Refused(429, words, wait=window.wait())

    def _check(self, kind: str, row: Row, said: Row) -> None:
        if kind == "users":
            email = str(said.get("email") or "").lower()
            if email and ("@" not in email or "." not in email.rpartition("@")[2]):
                raise invalid("email", f"Email: {email} is not properly formatted", "InvalidValue")
            owner = self._owner(email) if email else None
            if owner is not None and owner["id"] != row["id"]:
                raise invalid("email", f"Email: {email} is already being used by another user", "DuplicateValue")
        if kind == "organizations" and said.get("name"):
            twins = self._tables[kind].having("name", [said["name"].lower()])
            if any(each["id"] != row["id"] and self._alive(each) for each in twins):
                raise invalid("name", f"Name: {said['name']} has already been taken", "DuplicateValue")
        for name, choices in (("status", STATUSES), ("priority", _PRIORITIES), ("type", _TYPES)):
            if kind == "tickets" and name in said and said[name] not in choices:
                raise invalid(name, f"{name.title()}: {said[name]} is not valid", "InvalidValue")
        if said.get("organization_id") is not None:
            organization = self._tables["organizations"].get(str(said["organization_id"]))
            if organization is None or not self._alive(organization):
                raise invalid("organization", "Organization: is invalid", "InvalidValue")

    def _may_update(self, row: Row, said: Row) -> None:
        if row["status"] == "closed":
            raise Refused(422, _invalid_record("status", {"description": "Status: closed prevents ticket update"}))
        if str(said.get("safe_update")).lower() == "true" and said.get("updated_stamp"):
            stamp = datetime.fromisoformat(str(said["updated_stamp"]))
            if stamp.replace(microsecond=0) < datetime.fromisoformat(row["updated_at"]):
                words = "Safe Update prevented the update due to outdated ticket data. Please fetch the latest ticket data and try again."
                raise Refused(409, {"error": "UpdateConflict", "description": words})

    def _create_ticket(self, said: Row) -> Row:
        comment = said.get("comment") or {}
        text = comment.get("body") or comment.get("html_body")
        if not text:
            raise invalid("base", "Description: cannot be blank", "BlankValue")
        if requester := said.get("requester"):
            said = {**said, "requester_id": self.create_or_update({"role": "end-user", **requester})[0]["id"]}
        user = self._tables["users"].get(str(said.get("requester_id") or self._agent))
        if user is None or not self._alive(user):
            raise invalid("requester", "Requester: is invalid", "InvalidValue")
        if user["suspended"]:
            raise invalid("requester", "Requester: is suspended", "InvalidValue")
        row = {
            **self._blank("tickets", next(self._ids)), "description": text, "requester_id": user["id"], "submitter_id": self._agent,
            "organization_id": user["organization_id"], "created_at": self._now(),
        }  # fmt: skip
        self._check("tickets", row, said)
        return self._saved("tickets", row, said)

    # ---- what is done ----

    def _saved(self, kind: str, row: Row, said: Row) -> Row:
        row = {**row, **{name: value for name, value in said.items() if name in _WRITABLE[kind]}, "updated_at": self._now()}
        for fields in ("user_fields", "organization_fields"):
            if fields in row and isinstance(said.get(fields), dict):  # a field that the account does not have is passed over
                row[fields] = row[fields] | {name: value for name, value in said[fields].items() if name in row[fields]}
        if kind == "tickets":
            values = {each["id"]: each["value"] for each in row["custom_fields"]}
            values |= {
                int(each["id"]): each["value"]
                for each in said.get("custom_fields") or said.get("fields") or ()
                if int(each["id"]) in values
            }
            row["custom_fields"] = row["fields"] = [{"id": id, "value": value} for id, value in values.items()]
            row["raw_subject"] = row["subject"]
        self._tables[kind].put(str(row["id"]), row)
        return row

    def _add_address(self, row: Row, address: str) -> None:
        """On update an address becomes a secondary one: the primary one stays, unless there was none."""
        if row["email"] is None:
            row["email"] = address
        elif address not in {each["value"].lower() for each in self.addresses(row)}:
            identity = {
                "id": next(self._ids),
                "user_id": row["id"],
                "type": "email",
                "value": address,
                "primary": False,
                "verified": False,
            }
            self.identities.setdefault(row["id"], []).append(identity)

    def _owner(self, email: str) -> Row | None:
        return next((each for each in self._tables["users"].having("email", [email]) if self._alive(each)), None)

    def _users(self) -> Iterable[Row]:
        return (each for each in self._tables["users"] if self._alive(each))

    def _tickets_of(self, user: int) -> list[Row]:
        return [each for each in self._tables["tickets"].having("requester", [user]) if self._alive(each)]

    def _now(self) -> str:
        return f"{datetime.fromtimestamp(int(self._clock.time()), tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def invalid(field: str, description: str, code: str) -> Refused:
    return Refused(422, _invalid_record(field, {"description": description, "error": code}))


def _invalid_record(field: str, problem: Row) -> Row:
    return {"error": "RecordInvalid", "description": "Record validation errors", "details": {field: [problem]}}

"""An audience of Mailchimp's sandbox: its members, what each may become, and who is found under which of their three names."""

import hashlib
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from msgspec.structs import replace

from sandbox.clock import SandboxClock
from sandbox.table import Row, Table
from sandbox.world import Person, Profile

STATUSES = frozenset({"subscribed", "unsubscribed", "cleaned", "pending", "transactional"})
CHOICES = ("Free", "Plus", "Pro")
MERGE_FIELDS: tuple[tuple[str, str, str, Mapping[str, Any]], ...] = (
    ("FNAME", "First Name", "text", {"size": 25}), ("LNAME", "Last Name", "text", {"size": 25}), ("ADDRESS", "Address", "address", {"default_country": 164}),
    ("PHONE", "Phone Number", "phone", {"phone_format": "none"}), ("BIRTHDAY", "Birthday", "birthday", {"date_format": "MM/DD"}),
    ("MMERGE7", "Membership tier", "dropdown", {"choices": list(CHOICES)}), ("SEATS", "Seats", "number", {}), ("SINCE", "Customer since", "date", {"date_format": "MM/DD/YYYY"}),
)  # fmt: skip
_TYPES = {tag: type for tag, _, type, _ in MERGE_FIELDS}
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_SET = ("email_type", "language", "vip", "location", "interests", "ip_signup", "timestamp_signup", "ip_opt", "timestamp_opt")


class Refused(Exception):
    """The vendor's no: its title, status and words, and the fields it finds fault with (name, message)."""

    def __init__(self, status: int, title: str, detail: str, *fields: tuple[str, str]) -> None:
        super().__init__(title)
        self.status, self.title, self.detail, self.fields = status, title, detail, fields


class Span:
    """A part of an order of members: sliced and turned as a list of ids would be, and made to ids only where it is read."""

    def __init__(self, order: Sequence[tuple[int, str]], places: range) -> None:
        self._order, self._places = order, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, part: slice) -> "Span":
        return Span(self._order, self._places[part])

    def __iter__(self) -> Iterator[str]:
        return (self._order[at][1][::-1] for at in self._places)


class Audience:
    """
    Attributes:
        members: by `contact_id`, archived ones included.
        forgotten: hashes of addresses that were deleted for good; they cannot come back by the API.
    """

    def __init__(
        self, id: str, name: str, created: int, profiles: Iterable[Profile], people: Sequence[Person], clock: SandboxClock
    ) -> None:
        self.id, self.name, self.created = id, name, created
        self._clock = clock
        self._hashes: dict[str, str] = {}  # md5 of the address → contact_id
        self._addresses: dict[str, str] = {}  # contact_id → md5
        self.forgotten: set[str] = set()
        entries: dict[str, Profile] = {}
        # An address has one member: a twin that was archived had come by the private one, or leaves no trace.
        for each in sorted(profiles, key=lambda profile: profile.deleted):
            if each.deleted and hashed(address(each)) in self._hashes:
                each = replace(each, email=people[each.person].private_email)
            if self._hashes.setdefault(hashed(address(each)), contact(each.id)) == contact(each.id):
                entries[contact(each.id)] = each
                self._addresses[contact(each.id)] = hashed(address(each))
        self.members: Table[Profile] = Table(entries, self._row)
        # Members of equal times come in no order that the documents state, but always the same one: by the id backwards.
        self._order = sorted((each.updated, id[::-1]) for id, each in entries.items() if not each.deleted)

    # ---- reading ----

    def find(self, who: str) -> Row | None:
        """Return a member by the hash of the address, by the address, or by `contact_id`, archived or not."""
        id = self._hashes.get(hashed(who) if "@" in who else who, who)
        return self.members.get(id)

    def count(self) -> int:
        return len(self._order)

    def changed(self, since: int | None, before: int | None) -> "Span":
        """Return those who changed after and before these moments, the longest unchanged first, without the archived."""
        low = 0 if since is None else bisect_right(self._order, since, key=lambda each: each[0])
        high = len(self._order) if before is None else bisect_left(self._order, before, key=lambda each: each[0])
        return Span(self._order, range(low, high))

    def archived(self, since: int | None, before: int | None) -> list[Row]:
        """Return the archived members who changed after and before these moments, in no order."""
        rows = ((row, millis(row["last_changed"])) for row in self.members if row["status"] == "archived")
        return [row for row, at in rows if (since is None or at > since) and (before is None or at < before)]

    # ---- writing ----

    def add(self, said: Mapping[str, Any], *, validate: bool = True) -> Row:
        """Add a member, as POST does.

        Raises:
            Refused: the address is known, forgotten or none, or a value does not fit.
        """
        email = said.get("email_address")
        if not isinstance(email, str) or not _EMAIL.fullmatch(email):
            raise Refused(
                400,
                "Invalid Resource",
                "Please provide a valid email address.",
                ("email_address", "This value should be a valid email."),
            )
        if said.get("status") not in STATUSES:
            raise invalid("status", "Data did not match any of the schemas described in anyOf.")
        if hashed(email) in self._hashes:
            raise Refused(400, "Member Exists", f"{email} is already a list member. Use PUT to insert or update list members.")
        if hashed(email) in self.forgotten:
            text = f"{email} was permanently deleted and cannot be re-imported. The contact must re-subscribe to get back on the list."
            raise Refused(400, "Forgotten Email Not Subscribed", text)
        now = self._clock.time()
        id = _digest(f"{self.id} {email} {now} {len(self.members)}")
        row = self._blank(id, email)
        row["timestamp_opt"] = iso(now * 1000) if said["status"] == "subscribed" else ""
        return self._store(id, self._with(row, said, validate=validate))

    def change(self, row: Row, said: Mapping[str, Any], *, statuses: frozenset[str] = STATUSES, validate: bool = True) -> Row:
        """Change a member, as PUT and PATCH do. Raises Refused as `add` does."""
        status, email = said.get("status"), said.get("email_address")
        if status is not None and status not in statuses:
            raise invalid("status", "Data did not match any of the schemas described in anyOf.")
        if status == "subscribed" and row["status"] in {"unsubscribed", "cleaned"}:
            text = f"{row['email_address']} is in a compliance state due to unsubscribe, bounce, or compliance review and cannot be subscribed."
            raise Refused(400, "Member In Compliance State", text)
        if "email_address" in said:
            if not isinstance(email, str) or not _EMAIL.fullmatch(email):
                raise Refused(
                    400,
                    "Invalid Resource",
                    "Please provide a valid email address.",
                    ("email_address", "This value should be a valid email."),
                )
            if self._hashes.get(hashed(email), row["contact_id"]) != row["contact_id"]:
                raise Refused(
                    400, "Member Exists", f"{email} is already a list member. Use PUT to insert or update list members."
                )
        return self._store(row["contact_id"], self._with(row, said, validate=validate))

    def archive(self, row: Row) -> None:
        """Archive, as DELETE does. Raises Refused for whom that cannot be done to."""
        if row["status"] in {"cleaned", "pending", "archived"}:
            text = "This list member cannot be removed. Can not archive a contact that is bounced, pending or archived"
            raise Refused(405, "Method Not Allowed", text)
        self._store(row["contact_id"], {**row, "status": "archived"})

    def forget(self, row: Row) -> None:
        """Delete for good."""
        id = row["contact_id"]
        self._leave(id)
        self._hashes.pop(row["id"], None)
        self._addresses.pop(id, None)
        self.forgotten.add(row["id"])
        self.members.remove(id)

    def edit(self, row: Row, fields: Mapping[str, Any]) -> Row:
        """Set native fields without a question, as the vendor's own staff could."""
        merged = {**row["merge_fields"], **fields.get("merge_fields", {})}
        return self._store(row["contact_id"], {**row, **fields, "merge_fields": merged})

    def _store(self, id: str, row: Row) -> Row:
        self._leave(id)
        now = int(self._clock.time())
        merge = row["merge_fields"]
        row |= {
            "id": hashed(row["email_address"]), "unique_email_id": hashed(row["email_address"])[:10], "last_changed": iso(now * 1000),
            "full_name": f"{merge['FNAME']} {merge['LNAME']}".strip(),
        }  # fmt: skip
        self._hashes.pop(self._addresses.get(id, ""), None)
        self._hashes[row["id"]], self._addresses[id] = id, row["id"]
        self.members.put(id, row)
        if row["status"] != "archived":
            insort(self._order, (now * 1000, id[::-1]))
        return dict(row)

    def _leave(self, id: str) -> None:
        """Take a member out of the order."""
        row = self.members.get(id)
        if row is not None and row["status"] != "archived":
            at = bisect_left(self._order, (millis(row["last_changed"]), id[::-1]))
            del self._order[at]

    def _with(self, row: Row, said: Mapping[str, Any], *, validate: bool) -> Row:
        given = said.get("merge_fields", {})
        if not isinstance(given, dict):
            raise invalid("merge_fields", "Schema describes object, found other instead")
        given = {tag: value for tag, value in given.items() if tag in _TYPES}  # unknown tags are passed over
        faults = [fault for tag, value in given.items() if (fault := _fault(tag, value))] if validate else []
        if faults:
            raise Refused(400, "Invalid Resource", "Your merge fields were invalid.", *faults)
        changed = {name: said[name] for name in ("email_address", "status", *_SET) if said.get(name) is not None}
        return {
            **row,
            **changed,
            "merge_fields": {**row["merge_fields"], **{tag: _kept(tag, value) for tag, value in given.items()}},
        }

    # ---- rendering ----

    def _row(self, each: Profile) -> Row:
        row = self._blank(contact(each.id), address(each))
        status = {0: "unsubscribed", 1: "cleaned", 2: "pending", 3: "transactional"}.get(each.number % 16, "subscribed")
        form = status == "pending" or (each.number % 3 == 0 and status != "transactional")
        confirmed = status not in {"pending", "transactional"}
        return row | {
            "web_id": each.id, "full_name": f"{each.given} {each.family}".strip(), "status": "archived" if each.deleted else status,
            "merge_fields": {
                "FNAME": each.given, "LNAME": each.family, "PHONE": each.phone or "", "ADDRESS": "", "BIRTHDAY": "", "MMERGE7": CHOICES[each.number % 3],
                "SEATS": each.number, "SINCE": iso(each.created)[:10] if each.number % 2 else "",
            },
            "timestamp_signup": iso(each.created) if form else "", "timestamp_opt": iso(each.created) if confirmed else "", "last_changed": iso(each.updated),
            "language": "de" if each.country == "DE" else "en", "member_rating": 1 + each.number % 5, "source": "Hosted Signup Form" if form else "API - Generic",
        }  # fmt: skip

    def _blank(self, id: str, email: str) -> Row:
        return {
            "id": hashed(email), "email_address": email, "unique_email_id": hashed(email)[:10], "contact_id": id, "full_name": "",
            "web_id": int(id[:7], 16), "email_type": "html", "status": "", "consents_to_one_to_one_messaging": True, "sms_phone_number": "",
            "sms_subscription_status": "nonsubscribed", "sms_subscription_last_updated": "",
            "merge_fields": dict.fromkeys(_TYPES, ""), "interests": {}, "stats": {"avg_open_rate": 0, "avg_click_rate": 0},
            "ip_signup": "", "timestamp_signup": "", "ip_opt": "", "timestamp_opt": "", "member_rating": 2, "last_changed": "", "language": "en",
            "vip": False, "email_client": "", "location": {"latitude": 0, "longitude": 0, "gmtoff": 0, "dstoff": 0, "country_code": "", "timezone": ""},
            "source": "API - Generic", "tags_count": 0, "tags": [], "list_id": self.id,
        }  # fmt: skip


def invalid(field: str, message: str) -> Refused:
    text = "The resource submitted could not be validated. For field-specific details, see the 'errors' array."
    return Refused(400, "Invalid Resource", text, (field, message))


def address(each: Profile) -> str:
    return each.email or f"c{each.id}@guest.example"  # the vendor has no member without one


def contact(world_id: int) -> str:
    return _digest(f"contact {world_id}")


def hashed(email: str) -> str:
    return _digest(email.lower())


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def iso(at: float) -> str:
    return f"{datetime.fromtimestamp(at // 1000, tz=UTC):%Y-%m-%dT%H:%M:%S+00:00}"


def millis(text: str) -> int:
    """Raises ValueError when it is no moment with a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"no zone in {text!r}")
    return round(moment.timestamp() * 1000)


def _fault(tag: str, value: Any) -> tuple[str, str] | None:
    """Return what is wrong with a merge field's value; "" clears every one of them."""
    if value == "":
        return None
    match _TYPES[tag]:
        case "number" if not re.fullmatch(r"-?\d+(\.\d+)?", str(value)):
            return (tag, "This value should be a valid number")
        case "dropdown" if value not in CHOICES:
            return (tag, f"Value must be one of: {', '.join(CHOICES)} (not '{value}')")
        case "date":
            try:
                date.fromisoformat(str(value)[:10])
            except ValueError:
                return (tag, "Please enter a valid date")
        case "address" if not (isinstance(value, dict) and {"addr1", "city", "state", "zip"} <= value.keys()):
            return (tag, "Please enter a complete address")
        case "text" | "phone" if not isinstance(value, str):
            return (tag, "Schema describes string, found other instead")
    return None


def _kept(tag: str, value: Any) -> Any:
    if value == "":
        return value
    if _TYPES[tag] == "number":
        return float(value) if "." in str(value) else int(value)
    return str(value)[:10] if _TYPES[tag] == "date" else value

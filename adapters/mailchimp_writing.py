"""How members of a Mailchimp audience are written.

New ones go out 500 a call, where a row's failure is its own; the answer lacks `contact_id`, which one list of the latest changes tells.
Upserts go one by one: the batch has no `status_if_new`, so it would set the status of those who are there already, that is, their
consent. Updates and deletes have no batch.

An archived member counts as gone, and the vendor keeps the address: a create that meets one brings it back, an upsert too. An update of
one is told as not found, although the vendor sets the fields of the archived entry.
"""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta
from typing import Any
from urllib.parse import quote

from adapters.base import Api, Outcome, Request, Write, batches
from adapters.writing import failed, settled
from mapping.convert import instant
from model.errors import DuplicateError, RejectedError, SourceError
from model.records import Row

_BATCH = 500
_LATEST = 1000


async def written(api: Api, members: str, writes: Sequence[Write], *, new: str) -> list[Outcome]:
    """Return one outcome each, in order.

    Args:
        members: path of the audience's members.
        new: status of those who are not there yet, unless the row says one.
    """
    audience = _Audience(api, members, new)
    created = [at for at, each in enumerate(writes) if each.verb == "create"]
    groups = list(batches(created, _BATCH)) if len(created) > 1 else [created] if created else []
    groups += [[at] for at, each in enumerate(writes) if each.verb != "create"]
    done = await asyncio.gather(
        *(settled([writes[at] for at in group], audience.call_for(writes[group[0]].verb)) for group in groups)
    )
    outcomes = {at: outcome for group, found in zip(groups, done, strict=True) for at, outcome in zip(group, found, strict=True)}
    return [outcomes[at] for at in range(len(writes))]


def hashed(email: str) -> str:
    """Return the name under which an address is found: of any other spelling than the lower-case one there is none."""
    return hashlib.md5(email.lower().encode(), usedforsecurity=False).hexdigest()


class _Audience:
    def __init__(self, api: Api, members: str, new: str) -> None:
        self._api, self._members, self._new = api, members, new

    def call_for(self, verb: str) -> Any:
        return {"create": self._created, "update": self._updated, "upsert": self._upserted, "delete": self._deleted}[verb]

    async def _created(self, writes: Sequence[Write]) -> list[Outcome]:
        if len(writes) > 1:
            return await self._imported(writes)
        [write] = writes
        row = self._row(write)
        try:
            found = await self._send("create", "POST", self._members, row, safe=False)
        except DuplicateError as error:
            return [await self._revived(row, error)]
        return [Outcome(state="APPLIED", native_id=found["contact_id"], created=True)]

    async def _imported(self, writes: Sequence[Write]) -> list[Outcome]:
        rows = [self._row(write) for write in writes]
        body = {"members": rows, "update_existing": False}
        answer = await self._send("create", "POST", self._members.removesuffix("/members"), body, safe=False)
        ids = await self._ids(answer["new_members"])
        refused = {each["email_address"].lower(): each for each in answer["errors"]}

        async def outcome(row: Row) -> Outcome:
            email = str(row.get("email_address") or "").lower()
            if (error := refused.get(email)) is None:
                # Named by neither list: what became of it is not told.
                known = hashed(email) in ids
                return (
                    Outcome(state="APPLIED", native_id=ids[hashed(email)], created=True)
                    if known
                    else Outcome(state="UNKNOWN", error=RejectedError("the answer does not name it"))
                )
            if error["error_code"] == "ERROR_CONTACT_EXISTS":
                return await self._revived(
                    row, DuplicateError("another member has this address", upstream_code=error["error_code"])
                )
            at_fault = error.get("field") or ""
            paths = [at_fault if at_fault in row else f"merge_fields.{at_fault}"] if at_fault else []
            return Outcome(state="REJECTED", error=RejectedError("refused", upstream_code=error["error_code"]), fields=paths)

        return list(await asyncio.gather(*(outcome(row) for row in rows)))

    async def _ids(self, new: Sequence[Row]) -> dict[str, str | None]:
        """Return `contact_id` by hash, for each new member; None where it could not be asked for: they are written all the same."""
        found: dict[str, str | None] = {row["id"]: None for row in new}
        moments = [moment for row in new if (moment := instant(row.get("last_changed") or ""))]
        try:
            if moments:
                since = (min(moments) - timedelta(seconds=1)).astimezone(UTC)
                asked = [
                    ("since_last_changed", f"{since:%Y-%m-%dT%H:%M:%S+00:00}"), ("sort_field", "last_changed"), ("sort_dir", "DESC"), ("count", str(_LATEST)),
                    ("fields", "members.id,members.contact_id"),
                ]  # fmt: skip
                latest = (await self._api.send(Request(operation="contact.ids", path=self._members, params=asked))).json()
                found |= {row["id"]: row["contact_id"] for row in latest["members"] if row["id"] in found}
            missing = [hash for hash, id in found.items() if id is None]
            rows = await asyncio.gather(*(self._look(hash) for hash in missing))
            found |= {hash: row["contact_id"] for hash, row in zip(missing, rows, strict=True)}
        except SourceError:
            pass  # nothing is lost: the caller is told that they are written, and not under which ids
        return found

    async def _revived(self, row: Row, taken: DuplicateError) -> Outcome:
        """Bring an archived member back under a new record's values; of a live one tell that the address is taken."""
        name = hashed(row["email_address"])
        try:
            if (await self._look(name))["status"] != "archived":
                return failed(taken)
            found = await self._send(
                "create", "PUT", f"{self._members}/{name}", {**row, "status_if_new": row["status"]}, safe=True
            )
        except SourceError as error:
            return failed(error)
        return Outcome(state="APPLIED", native_id=found["contact_id"], created=True)

    async def _upserted(self, writes: Sequence[Write]) -> list[Outcome]:
        [write] = writes
        row = _spelled(write.row)
        status = row.get("status") or self._new
        path = f"{self._members}/{hashed(str(row.get('email_address') or ''))}"
        found = await self._send("upsert", "PUT", path, {**row, "status_if_new": status}, safe=write.repeatable)
        if found["status"] != "archived":
            return [Outcome(state="APPLIED", native_id=found["contact_id"])]
        found = await self._send("upsert", "PUT", path, {**row, "status_if_new": status, "status": status}, safe=write.repeatable)
        return [Outcome(state="APPLIED", native_id=found["contact_id"], created=True)]

    async def _updated(self, writes: Sequence[Write]) -> list[Outcome]:
        [write] = writes
        found = await self._send("update", "PATCH", self._path(write), _spelled(write.row), safe=write.repeatable)
        if found["status"] == "archived":
            return [failed(RejectedError("not found: the member is archived", status=404))]
        return [Outcome(state="APPLIED", native_id=found["contact_id"])]

    async def _deleted(self, writes: Sequence[Write]) -> list[Outcome]:
        [write] = writes
        path = self._path(write)
        try:
            await self._api.send(Request(operation="contact.delete", method="DELETE", path=path, safe=write.repeatable))
        except RejectedError as error:
            gone = error.status == 404 or (
                error.status == 405 and (await self._look(write.native_id or ""))["status"] == "archived"
            )
            if not gone:
                raise  # bounced and pending members cannot be archived
            return [Outcome(state="UNCHANGED", native_id=write.native_id)]
        return [Outcome(state="APPLIED", native_id=write.native_id)]

    def _path(self, write: Write) -> str:
        return f"{self._members}/{quote(write.native_id or '', safe='')}"

    def _row(self, write: Write) -> Row:
        return {"status": self._new, **_spelled(write.row)}

    async def _look(self, name: str) -> Row:
        asked = [("fields", "contact_id,status")]
        row: Row = (await self._api.send(Request(operation="contact.look", path=f"{self._members}/{name}", params=asked))).json()
        return row

    async def _send(self, verb: str, method: str, path: str, body: Mapping[str, Any], *, safe: bool) -> Row:
        answer: Row = (
            await self._api.send(Request(operation=f"contact.{verb}", method=method, path=path, json=body, safe=safe))
        ).json()
        return answer


def _spelled(row: Row) -> Row:
    """Clear merge fields as the vendor does, with "": it takes no null."""
    if not row.get("merge_fields"):
        return row
    return {**row, "merge_fields": {tag: "" if value is None else value for tag, value in row["merge_fields"].items()}}

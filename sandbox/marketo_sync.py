"""What is written to Marketo: leads synced record by record, deleted, merged, and changed by its users.

A sync looks all its keys up before it writes any: the same key twice in one request, or in two at the same time, makes two leads.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import orjson
from starlette.requests import Request

from sandbox.clock import SandboxClock
from sandbox.marketo_fields import FIELDS, stored
from sandbox.marketo_log import CHANGE, DELETE, MERGE, NEW_LEAD, Log
from sandbox.marketo_times import moment, read_moment
from sandbox.table import Row, Table
from sandbox.world import Profile

_BATCH = 300
_ACTIONS = frozenset({"createOrUpdate", "createOnly", "updateOnly", "createDuplicate"})
_WORK = 0.02  # seconds between looking up and writing


class Refusal(Exception):
    """A whole call, or one record of it, is refused with a code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Sync:
    def __init__(self, leads: Table[Profile], log: Log, clock: SandboxClock) -> None:
        self._leads, self._log, self._clock = leads, log, clock
        self._ids = count(1_000_000_001)

    # ---- calls ----

    async def synced(self, request: Request) -> list[Row]:
        body = await _json(request)
        action, by = body.get("action") or "createOrUpdate", body.get("lookupField") or "email"
        records = _records(body)
        if action not in _ACTIONS:
            raise Refusal("1003", f"Invalid action '{action}'")
        if by not in FIELDS:
            raise Refusal("1006", f"Field '{by}' not found")
        if by != "id" and by not in self._leads.indexed:
            raise Refusal("1011", f"Field '{by}' not supported")
        if by == "id" and action != "updateOnly":
            raise Refusal("1003", "Invalid data: id is managed by the system")
        if body.get("partitionName") not in {None, "Default"}:
            raise Refusal("1008", f"Access denied to partition '{body['partitionName']}'")
        found = self._found(by, records)
        await asyncio.sleep(_WORK)
        return [self._record(action, by, record, found) for record in records]

    async def deleted(self, request: Request, named: Sequence[int]) -> list[Row]:
        """Delete the leads of the body, or those named in the query."""
        records = [{"id": id} for id in named] or _records(await _json(request))
        done: list[Row] = []
        for record in records:
            if self.removed(str(record.get("id"))):
                done.append({"id": record["id"], "status": "deleted"})
            else:
                done.append({"id": record.get("id"), **_skipped(Refusal("1004", f"Lead '{record.get('id')}' not found"))})
        return done

    def merged(self, winner: str, losers: Sequence[str]) -> None:
        """Merge leads away: the winner's values stay, its gaps are filled, and it has everybody's activities."""
        row = self._leads.get(winner)
        if not losers:
            raise Refusal("1002", "Missing value for the required parameter 'leadIds'")
        if row is None or winner in losers:
            raise Refusal("1004", f"Lead '{winner}' not found")
        if missing := [id for id in losers if self._leads.get(id) is None]:
            raise Refusal("1004", f"Lead '{missing[0]}' not found")
        for id in losers:
            loser = self._leads.get(id) or {}
            gaps = {name: value for name, value in loser.items() if row[name] is None and value is not None}
            row = self.changed(row, gaps)
            self._log.move(int(id), int(winner))
            self._leads.remove(id)
            self._log.add(self._now(), int(id), DELETE, _named(loser))
        self._log.add(self._now(), int(winner), MERGE, f"[{','.join(losers)}]")

    # ---- one lead ----

    def changed(self, row: Row, fields: Mapping[str, Any]) -> Row:
        """Store new values; the visible time of change moves with standard fields only."""
        now = self._now()
        for name, value in fields.items():
            if row.get(name) != value:
                self._log.add(now, row["id"], CHANGE, (name, row.get(name), value))
        row = {**row, **fields}
        if any(not FIELDS[name].custom for name in fields if name in FIELDS):
            row["updatedAt"] = moment(max(now, read_moment(row["updatedAt"]) + 1000), row["id"])
        self._leads.put(str(row["id"]), row)
        return row

    def removed(self, native_id: str) -> bool:
        row = self._leads.get(native_id)
        if row is None:
            return False
        self._leads.remove(native_id)
        self._log.forget(row["id"])
        self._log.add(self._now(), row["id"], DELETE, _named(row))
        return True

    def _record(self, action: str, by: str, record: Any, found: Mapping[str, list[str]]) -> Row:
        try:
            if not isinstance(record, dict):
                raise Refusal("1003", "Invalid data")
            values = _values(action, record)
            key = _key(record.get(by))
            if key is None and action != "createDuplicate":
                raise Refusal("1003", f"Value for lookup field '{by}' not found")
            matching = [id for id in found.get(key or "", []) if self._leads.get(id) is not None]
            return self._applied(action, values, matching)
        except Refusal as refusal:
            return _skipped(refusal)

    def _applied(self, action: str, values: Row, matching: Sequence[str]) -> Row:
        if action == "createDuplicate" or (not matching and action != "updateOnly"):
            return {"id": self._created(values), "status": "created"}
        if action == "createOnly":
            raise Refusal("1005", "Lead already exists")
        if not matching:
            raise Refusal("1004", "Lead not found")
        if len(matching) > 1:
            raise Refusal("1007", "Multiple lead match lookup criteria")
        row = self._leads.get(matching[0])
        assert row is not None
        self.changed(row, values)
        return {"id": row["id"], "status": "updated"}

    def _created(self, values: Row) -> int:
        id, now = next(self._ids), self._now()
        blank = {**dict.fromkeys(FIELDS), "unsubscribed": False, "leadScore": 0, "leadPartitionId": 1}
        row = {**blank, **values, "id": id, "createdAt": moment(now, id), "updatedAt": moment(now, id)}
        self._leads.put(str(id), row)
        self._log.add(now, id, NEW_LEAD)
        return id

    def _found(self, by: str, records: Iterable[Any]) -> dict[str, list[str]]:
        """Return the ids of the leads that have each key."""
        keys = {key for record in records if isinstance(record, dict) and (key := _key(record.get(by))) is not None}
        if by == "id":
            return {key: [key] for key in keys if self._leads.get(key) is not None}
        found: dict[str, list[str]] = {}
        for row in self._leads.having(by, keys):
            found.setdefault(_key(row[by]) or "", []).append(str(row["id"]))
        return found

    def _now(self) -> int:
        return int(self._clock.time()) * 1000


def _values(action: str, record: Row) -> Row:
    """Return what is to be stored."""
    values: Row = {}
    for name, value in record.items():
        if name == "id":
            if action != "updateOnly":
                raise Refusal("1003", "Invalid data: id is managed by the system")
            continue
        if name not in FIELDS:
            raise Refusal("1006", f"Field '{name}' not found")
        if name == "company":
            raise Refusal("1021", "Company update not allowed")
        if not FIELDS[name].updateable:
            raise Refusal("1011", f"Field '{name}' not supported")
        try:
            values[name] = stored(name, value)
        except (ValueError, TypeError):
            raise Refusal("1001", f"Invalid value '{value}'. Required of type '{FIELDS[name].type}'") from None
    return values


def _key(value: Any) -> str | None:
    return str(value).lower() if value not in (None, "") else None


def _named(row: Row) -> str:
    return f"{row.get('firstName') or ''} {row.get('lastName') or ''}".strip()


def _skipped(refusal: Refusal) -> Row:
    return {"status": "skipped", "reasons": [{"code": refusal.code, "message": refusal.message}]}


def _records(body: Row) -> list[Any]:
    records = body.get("input")
    if not isinstance(records, list) or not records:
        raise Refusal("1002", "Missing value for the required parameter 'input'")
    if len(records) > _BATCH:
        raise Refusal("1003", f"At most {_BATCH} records")
    return records


async def _json(request: Request) -> Row:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise Refusal("612", "Invalid Content Type")
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise Refusal("609", "Invalid JSON") from None
    if not isinstance(body, dict):
        raise Refusal("609", "Invalid JSON")
    return body

"""Applying: what was read of records becomes versions, the identity index and events, in one transaction.

The version decides, not the order of arrival: what is older than what was applied is superseded, what says nothing new as well.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from identity.index import IdentityIndex, Observed
from model.clock import Clock
from model.events import Event, Origin
from model.records import Person, Record, Ref
from store import inbox, versions
from store.database import Database
from store.events import append
from store.inbox import Ended
from store.versions import Version

_PLAIN = frozenset({
    "source", "system", "object", "native_id", "row", "fetched_at", "url", "created_at", "updated_at", "deleted_at", "revision",
})  # fmt: skip
_NEW = timedelta(seconds=5)  # a record whose last change is no further from its making was just made


class Reading(Struct, frozen=True, kw_only=True):
    """What is known now of one record that something was heard of.

    Attributes:
        record: as it was read; None: its system does not have it (any more).
        custom: its custom fields by key.
        ids: of the inbox's events that this settles.
        op: the strongest that was heard: "CHANGED", "DELETED" or "MERGED".
        quiet: make no event of it: it is being learned, it did not change.
    """

    ref: Ref
    system: str
    record: Record | None
    custom: Mapping[str, Any] = {}
    ids: tuple[int, ...] = ()
    op: str = "CHANGED"
    into: str | None = None
    at: datetime | None = None
    received_at: datetime
    origin: Origin
    quiet: bool = False


class Applied(Struct, frozen=True, kw_only=True):
    """What came of it. `changed`: how many records differ from what was known, quiet ones too."""

    events: list[Event]
    ended: dict[int, Ended]
    changed: int


class Applier:
    """Applies for one deployment.

    Args:
        key: of the hashes that tell whether a field changed.
    """

    def __init__(self, database: Database, index: IdentityIndex, *, key: bytes, clock: Clock) -> None:
        self._database, self._index, self._key, self._clock = database, index, key, clock

    async def apply(self, workspace: str, readings: Sequence[Reading], *, owner: str, known_all: bool = False) -> Applied:
        """Apply what was read, all or nothing.

        Args:
            owner: whose the inbox's events are; those that are not (any more) are left to their new owner.
            known_all: every record is known already, so one that is not was just made.
        """
        now = self._clock.now()
        async with self._database.write() as connection:
            mine = await inbox.still_mine(connection, [id for each in readings for id in each.ids], owner)
            todo = [each for each in readings if not each.ids or mine.intersection(each.ids)]
            # In this order everywhere: the inbox's rows, the versions, the identity index, the sequencer. So no two wait for each other.
            before = await versions.known(connection, workspace, [each.ref for each in todo], lock=True)
            fresh_ones = [each for each in todo if not _late(each, before.get(each.ref))]
            people = [each.record for each in fresh_ones if isinstance(each.record, Person)]
            gone = [each.ref for each in fresh_ones if each.record is None]
            customers = await self._index.observe_in(connection, workspace, [Observed.of(each) for each in people], gone)
            contacts = {ref for each in todo if (ref := _contact(each.record)) is not None}
            theirs = await self._index.customers_of(connection, workspace, contacts)
            events: list[Event] = []
            fresh: list[Version] = []
            ended: dict[int, Ended] = {}
            for each in todo:
                was = before.get(each.ref)
                version = self._version(each, now)
                news = _news(each, was, version)
                ids = [id for id in each.ids if id in mine]
                ended |= dict.fromkeys(ids, "SUPERSEDED")
                if not news:
                    continue
                fresh.append(version)
                if ids:
                    ended[ids[-1]] = "APPLIED"  # the others were of the same record, and are told by it
                if not each.quiet:
                    contact = _contact(each.record)
                    customer = customers.get(each.ref) or (theirs.get(contact) if contact is not None else None)
                    events.append(_event(workspace, each, was, version, customer, known_all=known_all))
            await versions.put(connection, workspace, fresh)
            await inbox.end(connection, ended, now=now)
            numbered = await append(connection, workspace, events, now=now)
        return Applied(events=numbered, ended=ended, changed=len(fresh))

    def _version(self, reading: Reading, now: datetime) -> Version:
        record = reading.record
        if record is None:
            return Version(ref=reading.ref, updated_at=reading.at, applied_at=now, gone=True)
        values = {name: getattr(record, name) for name in record.__struct_fields__ if name not in _PLAIN}
        values |= {f"custom.{key}": value for key, value in reading.custom.items()}
        marks = {name: self._mark(value) for name, value in values.items() if value not in (None, (), "")}
        return Version(ref=reading.ref, updated_at=record.updated_at, applied_at=now, marks=marks)

    def _mark(self, value: Any) -> str:
        said = msgspec.json.encode(value, enc_hook=str, order="deterministic")
        return hashlib.blake2b(said, digest_size=6, key=self._key).hexdigest()


def _news(reading: Reading, was: Version | None, version: Version) -> bool:
    """Tell whether what was read is newer than what was applied, and different from it."""
    if version.gone:
        # Gone before anybody knew of it: news only where the system itself said so.
        return not was.gone if was is not None else reading.op != "CHANGED"
    if was is None or _late(reading, was):
        return was is None
    return was.gone or version.marks != was.marks or version.updated_at != was.updated_at


def _late(reading: Reading, was: Version | None) -> bool:
    """Tell whether a record was read before what was applied of it since."""
    record = reading.record
    if record is None or was is None:
        return False
    if was.gone and record.fetched_at <= was.applied_at:  # what was deleted since must not come back
        return True
    return was.updated_at is not None and record.updated_at is not None and record.updated_at < was.updated_at


def _event(
    workspace: str, reading: Reading, was: Version | None, version: Version, customer: str | None, *, known_all: bool
) -> Event:
    record, changed = reading.record, None
    if record is None:
        op = "MERGED" if reading.op == "MERGED" and reading.into is not None else "DELETED"
    elif was is None or was.gone:
        made = was is None and (known_all or _just_made(record))
        op = "CREATED" if made or was is not None else "UPDATED"
    else:
        op = "UPDATED"
        names = was.marks.keys() | version.marks.keys()
        changed = tuple(sorted(name for name in names if was.marks.get(name) != version.marks.get(name)))
    at = (record.updated_at if record is not None else None) or reading.at or reading.received_at
    return Event(
        workspace=workspace, seq=0, op=op, ref=reading.ref, system=reading.system, customer=customer, changed=changed,  # type: ignore[arg-type]
        into=reading.into if op == "MERGED" else None, at=at, received_at=reading.received_at, origin=reading.origin,
    )  # fmt: skip


def _just_made(record: Record) -> bool:
    return record.created_at is not None and record.updated_at is not None and record.updated_at - record.created_at <= _NEW


def _contact(record: Record | None) -> Ref | None:
    """Return the contact whose customer a record belongs to, where the record tells."""
    native_id = getattr(record, "contact_id", None)
    return Ref(record.source, "contact", native_id) if record is not None and native_id else None

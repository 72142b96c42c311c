"""Effects happen once: writes under an idempotency key, entered in the ledger before they leave.

The same key again gets the stored outcome, also after the process was killed. What was begun and has no outcome was
perhaps carried out: it is looked up, and decided. A create is never sent twice on a guess: only when it is long past and
the system, asked plainly, has no such record.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from adapters.base import Position, Scan
from adapters.changes import digest_of
from adapters.writing import Applied, Outcome
from mapping.paths import pick
from model.clock import Clock
from model.errors import (
    ConflictError,
    ErrorCode,
    RejectedError,
    SourceError,
    UnsupportedError,
)
from model.money import Money
from model.records import Kind, ObjectType, Record, Stage
from sources.reading import Reading
from sources.source import Source
from sources.writing import RecordWrite, stage_named
from store.ledger import LedgerRow, LedgerRows

SETTLED = 60.0  # seconds after which what a system does not have will not appear any more (and its own `lag` besides)
LEASE = 90.0  # seconds one request may work under its key
_SKEW = timedelta(seconds=120)  # clocks of systems differ from ours
_RELATED = 100  # records of one parent
_LOOKED_THROUGH = 500  # newest records that a lost create is looked for among
Wrote = Callable[[Source, Kind, str, str], Awaitable[None]]
Begun = tuple[RecordWrite, datetime]  # a write, and when it was entered


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one step.

    Attributes:
        code, message, upstream_code: of the error, where it was not applied.
        retryable: nothing was done, and the same key may try again.
        fields: target fields (or custom keys) at fault.
        replayed: the outcome is that of an earlier request with the same key.
    """

    state: Applied
    native_id: str | None = None
    created: bool | None = None
    code: ErrorCode | None = None
    message: str | None = None
    upstream_code: str | None = None
    retryable: bool = False
    fields: tuple[str, ...] = ()
    replayed: bool = False

    @classmethod
    def of(cls, outcome: Outcome) -> "Written":
        error = outcome.error
        return cls(
            state=outcome.state, native_id=outcome.native_id, created=outcome.created, fields=tuple(outcome.fields),
            code=error.code if error else None, message=error.message if error else None,
            upstream_code=error.upstream_code if error else None,
            retryable=outcome.state == "UNKNOWN" or (outcome.state == "REJECTED" and not _final(error)),
        )  # fmt: skip

    def stored(self) -> dict[str, Any]:
        said: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in said.items() if value not in (None, [], False)}

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> "Written":
        return msgspec.convert({**stored, "replayed": True}, cls)


class Writer:
    """Writes of one workspace.

    Args:
        owner: names this process among those that share the ledger.
        wrote: told (source, kind, native id, mark) of each write that was applied, so that its echo is known for what it is.

    Attributes:
        working: requests that are being carried out; they end by themselves, also when their callers have hung up.
    """

    def __init__(self, ledger: LedgerRows, *, workspace: str, owner: str, clock: Clock, wrote: Wrote | None = None) -> None:
        self.ledger, self.workspace, self._wrote = ledger, workspace, wrote
        self._owner, self._clock = owner, clock
        self._held = 0
        self.working: set[asyncio.Task[None]] = set()

    async def finished(self) -> None:
        """Wait until everything that was begun has ended."""
        while self.working:
            await asyncio.wait(self.working)

    def holder(self) -> str:
        """Return a name of its own for one request, to hold leases under."""
        self._held += 1
        return f"{self._owner}/{self._held}"

    async def leased(self, name: str, holder: str) -> bool:
        """Let one request be the only one at work under a name, for a while; False while another is."""
        now = self._clock.now()
        return await self.ledger.lease(self.workspace, name, holder, now=now, until=now + timedelta(seconds=LEASE))

    async def released(self, name: str, holder: str) -> None:
        await self.ledger.release(self.workspace, name, holder)

    async def begin(self, key: str, step: str, digest: str) -> LedgerRow | None:
        """Enter a step; return the row that was there already.

        Raises:
            ConflictError: the key was used for another request.
        """
        known = (await self.ledger.begin(self.workspace, key, {step: digest}, now=self._clock.now())).get(step)
        if known is not None and known.digest != digest:
            raise ConflictError("this idempotency key was used for another request; take a new one")
        return known

    async def end(self, key: str, step: str, outcome: Mapping[str, Any]) -> None:
        await self.ledger.end(self.workspace, key, {step: outcome}, now=self._clock.now())

    async def once(
        self, source: Source, kind: Kind, key: str, digest: str, writes: Mapping[str, RecordWrite], reading: Reading
    ) -> dict[str, Written]:
        """Carry out writes by step, each once for its key, and return what became of each.

        Args:
            digest: of the whole request the steps belong to.
            writes: step → write; steps are unique under the key.

        Raises:
            ConflictError: the key was used for another request.
        """
        known = await self.ledger.begin(self.workspace, key, dict.fromkeys(writes, digest), now=self._clock.now())
        if any(row.digest != digest for row in known.values()):
            raise ConflictError("this idempotency key was used for another request; take a new one")
        found = {step: Written.read(row.outcome) for step, row in known.items() if row.outcome is not None}
        begun = {step: (writes[step], row.begun_at) for step, row in known.items() if step not in found}
        seen = await self._looked_up(source, kind, begun, reading)
        found |= {step: Written.of(outcome) for step, outcome in seen.items() if outcome is not None}
        sending = {step: write for step, write in writes.items() if step not in found}
        began = self._clock.now()
        await self.ledger.renew(self.workspace, key, [step for step in begun if step in sending], now=began)
        outcomes = dict(zip(sending, await source.write(kind, list(sending.values()), reading), strict=True))
        unclear = {step: (sending[step], began) for step, outcome in outcomes.items() if outcome.state == "UNKNOWN"}
        seen = await self._looked_up(source, kind, unclear, reading)
        outcomes |= {step: outcome for step, outcome in seen.items() if outcome is not None and outcome.state != "UNKNOWN"}
        found |= {step: Written.of(outcome) for step, outcome in outcomes.items()}
        await self._kept(key, {step: each for step, each in found.items() if not each.replayed}, reading)
        for step, each in found.items():
            if self._wrote is not None and each.state == "APPLIED" and each.native_id is not None and not each.replayed:
                await self._wrote(source, kind, each.native_id, digest_of(key, step, began.isoformat()))
        return {step: found[step] for step in writes}

    async def _kept(self, key: str, found: Mapping[str, Written], reading: Reading) -> None:
        """Store outcomes that stay; take back what was not done; what is unknown stays begun."""
        final = {step: each.stored() for step, each in found.items() if not each.retryable}
        undone = [step for step, each in found.items() if each.retryable and each.state == "REJECTED"]
        if final:
            await self.ledger.end(self.workspace, key, final, now=self._clock.now())
        if undone:
            await self.ledger.forget(self.workspace, key, undone)

    # ---- what became of writes that were perhaps carried out ----

    async def _looked_up(
        self, source: Source, kind: Kind, asked: Mapping[str, Begun], reading: Reading
    ) -> dict[str, Outcome | None]:
        """Return the outcomes as the system shows them, by step; None where the write may be sent (again)."""
        seen: dict[str, Outcome | None] = {}
        for look, verbs in ((self._changes, {"update", "delete"}), (self._creates, {"create", "upsert"})):
            some = {step: each for step, each in asked.items() if each[0].verb in verbs}
            try:
                seen |= await look(source, kind, some, reading) if some else {}
            except SourceError as error:
                seen |= {
                    step: Outcome(state="UNKNOWN", native_id=write.native_id, error=error) for step, (write, _) in some.items()
                }
        return seen

    async def _changes(
        self, source: Source, kind: Kind, asked: Mapping[str, Begun], reading: Reading
    ) -> dict[str, Outcome | None]:
        writes = [write for write, _ in asked.values()]
        names = _read_back(writes)
        ids = [write.native_id or "" for write in writes]
        found = (await source.read(kind, ids, fields=sorted(names), reading=_sure(reading))).value
        meta = await self._meta(source, kind, writes, reading)
        seen: dict[str, Outcome | None] = {}
        for step, (write, _) in asked.items():
            record = found[write.native_id or ""]
            if record is None and write.verb == "update":
                error = RejectedError("the record is not there any more", status=404)
                seen[step] = Outcome(state="REJECTED", error=error)
            elif record is None or (write.verb == "update" and says(record, write, meta) and _tied(record, write)):
                seen[step] = Outcome(state="APPLIED", native_id=write.native_id)
            else:  # sent with the version that was named, it is refused if something else was written since
                seen[step] = None
        return seen

    async def _creates(
        self, source: Source, kind: Kind, asked: Mapping[str, Begun], reading: Reading
    ) -> dict[str, Outcome | None]:
        facts = source.adapter.kinds[kind]
        names = sorted(_read_back(write for write, _ in asked.values()) | {"created_at"})
        through = True
        emails = [write.values.get("email") for write, _ in asked.values()]
        if source.finds(kind, "email") and all(isinstance(each, str) for each in emails):
            by_email = (
                await source.find(kind, "email", [str(each) for each in emails], fields=names, reading=_sure(reading))
            ).value
            records = [record for some in by_email.values() for record in some]
        elif source.orders(kind, "created"):
            records, through = await self._newest(source, kind, min(since for _, since in asked.values()), names, reading)
        else:
            error = UnsupportedError("its outcome is not known, and the system cannot be searched for it")
            return {step: Outcome(state="UNKNOWN", error=error) for step in asked}
        meta = await self._meta(source, kind, [write for write, _ in asked.values()], reading)
        # What another request made is not ours, however alike: two renewals of one price are two deals.
        taken = await self.ledger.made(self.workspace, source.id, since=min(since for _, since in asked.values()))
        seen: dict[str, Outcome | None] = {}
        for step, (write, since) in asked.items():
            ours = [
                each
                for each in records
                if says(each, write, meta) and (write.verb == "upsert" or (each.native_id not in taken and _is_new(each, since)))
            ]
            ours = [each for each in ours if write.verb == "upsert" or await self._belongs(source, kind, each, write, reading)]
            age = (self._clock.now() - since).total_seconds()
            if ours and write.verb == "upsert" and not _tied(ours[0], write):
                seen[step] = None  # its ties are made after it, and may be lacking; by its key it is met again
            elif ours:
                taken.add(ours[0].native_id)
                created = True if write.verb == "create" else None
                seen[step] = Outcome(state="APPLIED", native_id=ours[0].native_id, created=created)
            elif through and age >= SETTLED + facts.lag:
                seen[step] = None
            else:
                seen[step] = Outcome(
                    state="UNKNOWN", error=RejectedError("its outcome is not known yet; ask again with the same key")
                )
        return seen

    async def _belongs(self, source: Source, kind: Kind, record: Record, write: RecordWrite, reading: Reading) -> bool:
        """Tell whether a record is tied to what the write would tie it to, as far as the system can be asked."""
        for of, ids in write.links.items():
            if ids and source.relates(of, kind):
                related = await source.related(kind, of, [ids[0]], fields=(), first=_RELATED, reading=_sure(reading))
                if record.native_id not in {each.native_id for each in related.value[ids[0]].records}:
                    return False
        return True

    async def _meta(self, source: Source, kind: Kind, writes: Iterable[RecordWrite], reading: Reading) -> ObjectType | None:
        return await source.described(kind, reading) if any(write.needs_metadata for write in writes) else None

    async def _newest(
        self, source: Source, kind: Kind, since: datetime, names: Sequence[str], reading: Reading
    ) -> tuple[list[Record], bool]:
        """Return the records created since, the newest first, as far as they are looked through, and whether those are all."""
        found: list[Record] = []
        after: Position | None = None
        size = source.adapter.kinds[kind].page
        while len(found) < _LOOKED_THROUGH:
            page = (
                await source.scan(kind, Scan(descending=True, after=after, size=size), fields=names, reading=_sure(reading))
            ).value
            found += [record for _, record in page.rows if record is not None]
            if page.end or not page.rows or page.rows[-1][0].at < since - _SKEW:
                return found, True
            after = page.rows[-1][0]
        return found, False


def _read_back(writes: Iterable[RecordWrite]) -> set[str]:
    """Return the fields by which a record shows that it has what was written."""
    return {
        name
        for write in writes
        for name in (*write.values, *(f"custom.{key}" for key in write.custom), *(f"{kind}_id" for kind in write.links))
    }


def _tied(record: Record, write: RecordWrite) -> bool:
    """Tell whether a record shows every tie; one that its system keeps elsewhere does not show."""
    return all(getattr(record, f"{kind}_id", None) in ids for kind, ids in write.links.items() if ids)


def says(record: Record, write: RecordWrite, meta: ObjectType | None) -> bool:
    """Tell whether a record has every value that a write would give it."""
    return not differing(record, write.values, write.custom, meta)


def differing(record: Record, values: Mapping[str, Any], custom: Mapping[str, Any], meta: ObjectType | None) -> list[str]:
    """Return the target fields and custom keys whose values a record does not have."""
    found = [name for name, value in values.items() if not _same(getattr(record, name, None), value, meta)]
    for key, value in custom.items():
        field = meta.fields.get(key) if meta else None
        has = pick(record.row, field.path) if field else None
        if not _same_custom(has, value, field.options if field else {}):
            found.append(key)
    return found


def _same(has: Any, wanted: Any, meta: ObjectType | None) -> bool:
    if isinstance(has, Stage):
        stage = stage_named(str(wanted), meta)
        return stage is not None and stage.native == has.native
    if isinstance(has, Money) and isinstance(wanted, Money):
        return has.amount == wanted.amount and (not wanted.currency or has.currency == wanted.currency)
    if isinstance(has, str) and isinstance(wanted, str):
        return has.strip() == wanted.strip()
    return has == wanted or (has in (None, "") and wanted in (None, ""))


def _same_custom(has: Any, wanted: Any, options: Mapping[str, str]) -> bool:
    def spelled(value: Any) -> Any:
        if isinstance(value, list):
            return [spelled(each) for each in value]
        text = "" if value is None else str(value)
        return options.get(text, text).casefold()

    try:
        return spelled(has) == spelled(wanted) or float(has) == float(wanted)
    except (TypeError, ValueError, OverflowError):
        return False


def _is_new(record: Record, since: datetime) -> bool:
    return record.created_at is None or record.created_at >= since - _SKEW


def _sure(reading: Reading) -> Reading:
    return Reading(deadline=reading.deadline, lane=reading.lane, policy="SURE", calls=reading.calls)


def _final(error: SourceError | None) -> bool:
    """The system looked at it and said no: it will say so again."""
    return isinstance(error, RejectedError | UnsupportedError)

"""Effects happen once: writes under an idempotency key, entered in the ledger before they leave.

The same key again gets the stored outcome, also after the process was killed. What was begun and has no outcome was
perhaps carried out: it is looked up, and decided. A create is never sent twice on a guess: only when it is long past and
the system, asked plainly, has no such record.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from adapters.base import Position, Scan
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
_LOOKED_THROUGH = 500  # newest records that a lost create is looked for among


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

    Attributes:
        working: requests that are being carried out; they end by themselves, also when their callers have hung up.
    """

    def __init__(self, ledger: LedgerRows, *, workspace: str, owner: str, clock: Clock) -> None:
        self.ledger, self.workspace = ledger, workspace
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
        sending = {step: write for step, write in writes.items() if step not in known}
        for step, row in known.items():
            if step not in found:  # begun, and perhaps carried out
                outcome = await self._looked_up(source, kind, writes[step], row.begun_at, reading)
                if outcome is None:
                    sending[step] = writes[step]
                else:
                    found[step] = Written.of(outcome)
        began = self._clock.now()
        outcomes = dict(zip(sending, await source.write(kind, list(sending.values()), reading), strict=True))
        for step, outcome in outcomes.items():
            if outcome.state == "UNKNOWN":
                seen = await self._looked_up(source, kind, sending[step], began, reading)
                outcome = seen if seen is not None and seen.state != "UNKNOWN" else outcome
            found[step] = Written.of(outcome)
        await self._kept(key, {step: each for step, each in found.items() if not each.replayed}, reading)
        return {step: found[step] for step in writes}

    async def _kept(self, key: str, found: Mapping[str, Written], reading: Reading) -> None:
        """Store outcomes that stay; take back what was not done; what is unknown stays begun."""
        final = {step: each.stored() for step, each in found.items() if not each.retryable}
        undone = [step for step, each in found.items() if each.retryable and each.state == "REJECTED"]
        if final:
            await self.ledger.end(self.workspace, key, final, now=self._clock.now())
        if undone:
            await self.ledger.forget(self.workspace, key, undone)

    # ---- what became of a write that was perhaps carried out ----

    async def _looked_up(
        self, source: Source, kind: Kind, write: RecordWrite, since: datetime, reading: Reading
    ) -> Outcome | None:
        """Return the outcome as the system shows it, None when the write may be sent (again)."""
        try:
            if write.verb == "create":
                return await self._created(source, kind, write, since, reading)
            if write.verb == "delete":
                gone = (await source.read(kind, [write.native_id or ""], fields=(), reading=_live(reading))).value
                return None if any(gone.values()) else Outcome(state="APPLIED", native_id=write.native_id)
            if write.verb == "upsert":
                return None
            return await self._updated(source, kind, write, reading)
        except SourceError as error:
            return Outcome(state="UNKNOWN", native_id=write.native_id, error=error)

    async def _updated(self, source: Source, kind: Kind, write: RecordWrite, reading: Reading) -> Outcome | None:
        names = [*write.values, *(f"custom.{key}" for key in write.custom)]
        found = (await source.read(kind, [write.native_id or ""], fields=names, reading=_live(reading))).value
        record = next(iter(found.values()))
        if record is None:
            return Outcome(state="REJECTED", error=RejectedError("the record is not there any more", status=404))
        meta = await source.described(kind, reading) if write.needs_metadata else None
        if says(record, write, meta):
            return Outcome(state="APPLIED", native_id=write.native_id)
        return None  # sent with the version that was named, it is refused if something else was written since

    async def _created(self, source: Source, kind: Kind, write: RecordWrite, since: datetime, reading: Reading) -> Outcome | None:
        facts = source.adapter.kinds[kind]
        meta = await source.described(kind, reading) if write.needs_metadata else None
        names = [*write.values, "created_at"]
        email = write.values.get("email")
        if source.finds(kind, "email") and isinstance(email, str):
            records = (await source.find(kind, "email", [email], fields=names, reading=_live(reading))).value[email]
        elif source.orders(kind, "created"):
            records = await self._newest(source, kind, since, names, reading)
        else:
            error = UnsupportedError("its outcome is not known, and the system cannot be searched for it")
            return Outcome(state="UNKNOWN", error=error)
        ours = [each for each in records if _is_new(each, since) and says(each, write, meta)]
        if ours:
            return Outcome(state="APPLIED", native_id=ours[0].native_id, created=True)
        age = (self._clock.now() - since).total_seconds()
        if age >= SETTLED + facts.lag:
            return None
        return Outcome(state="UNKNOWN", error=RejectedError("its outcome is not known yet; ask again with the same key"))

    async def _newest(self, source: Source, kind: Kind, since: datetime, names: Sequence[str], reading: Reading) -> list[Record]:
        """Return the records created since, the newest first, as far as they are looked through."""
        found: list[Record] = []
        after: Position | None = None
        size = source.adapter.kinds[kind].page
        while len(found) < _LOOKED_THROUGH:
            page = (
                await source.scan(kind, Scan(descending=True, after=after, size=size), fields=names, reading=_live(reading))
            ).value
            found += [record for _, record in page.rows if record is not None]
            if page.end or not page.rows or page.rows[-1][0].at < since - _SKEW:
                break
            after = page.rows[-1][0]
        return found


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
    except (TypeError, ValueError):
        return False


def _is_new(record: Record, since: datetime) -> bool:
    return record.created_at is None or record.created_at >= since - _SKEW


def _live(reading: Reading) -> Reading:
    return Reading(deadline=reading.deadline, lane=reading.lane, policy="LIVE", calls=reading.calls)


def _final(error: SourceError | None) -> bool:
    """The system looked at it and said no: it will say so again."""
    return isinstance(error, RejectedError | UnsupportedError)

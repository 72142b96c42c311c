"""What every mutation does alike: once under its key, per target, with mistakes as data.

A mutation is a list of steps, each one write to one source. The operation itself is entered in the ledger with a digest of
what was asked; when all its steps have ended its outcome is stored, and the same key gets it again.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from identity.index import Observed
from model.errors import ConflictError, ErrorCode, SourceError
from model.records import Kind, Ref
from resolvers import people
from resolvers.context import Context, Terms
from resolvers.fanout import Fanout, not_asked
from sources.reading import Reading
from sources.source import Source
from sources.writer import Written
from sources.writing import RecordWrite
from store.ledger import LedgerRow

log = logging.getLogger(__name__)
WRITE_SCOPE = "write"
PATIENCE = 30.0  # seconds a mutation may take
PAUSE = 0.05  # seconds between looks whether another request has ended
MAX_KEY = 200
State = Literal["APPLIED", "UNCHANGED", "REJECTED", "CONFLICT", "SKIPPED", "UNKNOWN"]
OnDuplicate = Literal["UPSERT", "SKIP", "FAIL"]
OPERATION = ""  # the step that stands for the whole operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`WriteOptions`.

    Attributes:
        targets: ids of sources, None for those that the mutation chooses.
        if_version: the one record that is written must still have it.
        on_duplicate: what to do with a record that is there already.
    """

    key: str
    targets: tuple[str, ...] | None = None
    dry_run: bool = False
    if_version: str | None = None
    on_duplicate: OnDuplicate = "UPSERT"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserError:
    """A mistake or refusal as data.

    Attributes:
        field: path into the mutation's arguments.
    """

    code: ErrorCode
    message: str
    field: tuple[str, ...] | None = None
    source: Source | None = None
    upstream_code: str | None = None
    retryable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOutcome:
    """What became of one target. `changed`: the fields that were written (or, dry, would be)."""

    source: Source
    kind: Kind
    state: State
    native_id: str | None = None
    changed: tuple[str, ...] = ()
    error: UserError | None = None

    @property
    def ref(self) -> Ref | None:
        return Ref(self.source.id, self.kind, self.native_id) if self.native_id else None


@dataclass(slots=True, kw_only=True)
class Effects:
    """One mutation at work.

    Attributes:
        writes: outcomes so far, in the order of the targets.
        errors: mistakes that belong to no target.
    """

    context: Context
    options: Options
    digest: str
    reading: Reading
    writes: list[TargetOutcome] = field(default_factory=list)
    errors: list[UserError] = field(default_factory=list)
    replayed: bool = False
    holder: str = ""
    holding: list[str] = field(default_factory=list)

    async def hold(self, name: str) -> bool:
        """Be the only request at work under a name until this one ends; False, and a fault, where another stays too long."""
        if self.options.dry_run:
            return True
        writer, clock = self.context.writer, self.context.clock
        until = clock.monotonic() + PATIENCE / 3
        while not await writer.leased(name, self.holder):
            if clock.monotonic() >= until:
                message = "another request is at work on the same; ask again with the same key"
                self.errors.append(UserError(code="CONFLICT", message=message, retryable=True))
                return False
            await asyncio.sleep(PAUSE)
        self.holding.append(name)
        return True

    def fault(self, code: ErrorCode, message: str, *path: str, source: Source | None = None) -> None:
        self.errors.append(UserError(code=code, message=message, field=path or None, source=source))

    async def each(
        self, kind: Kind, targets: Sequence[Source], work: Callable[[Source], Awaitable[Sequence[TargetOutcome]]]
    ) -> None:
        """Do the work of all targets at once and take their outcomes; one that breaks off in a way of its own is that target's alone."""
        found = await asyncio.gather(*(work(source) for source in targets), return_exceptions=True)
        for source, outcomes in zip(targets, found, strict=True):
            if isinstance(outcomes, BaseException):
                if not isinstance(outcomes, Exception):
                    raise outcomes
                log.error("a target broke off", exc_info=outcomes, extra={"source": source.id, "kind": kind})
                message = "Internal error. Tell us the request id; the same key finds out what was done."
                self.writes.append(self.refusal(source, kind, "INTERNAL", message, state="UNKNOWN", retryable=True))
            else:
                self.writes += outcomes

    async def write(
        self, source: Source, kind: Kind, step: str, write: RecordWrite, changed: Sequence[str], *, known_as: str | None = None
    ) -> TargetOutcome:
        """Carry out one step, once for the key.

        Args:
            known_as: once for this name instead, whatever keys the requests have.
        """
        if (refusal := not_asked(source, self.context)) is not None:
            return self.outcome(source, kind, _failed(refusal), changed)
        key, digest = (known_as, "") if known_as else (self.options.key, self.digest)
        written = await self.context.writer.once(source, kind, key, digest, {step: write}, self.reading)
        return self.outcome(source, kind, written[step], changed)

    async def entered(self, step: str) -> LedgerRow | None:
        """Return what an earlier request with this key entered of a step, None when it did not come so far."""
        if self.options.dry_run:
            return None
        return await self.context.writer.ledger.row(self.context.workspace, self.options.key, step)

    def outcome(self, source: Source, kind: Kind, written: Written, changed: Sequence[str] = ()) -> TargetOutcome:
        error = None
        if written.code is not None:
            error = UserError(
                code=written.code, message=written.message or "", source=source, upstream_code=written.upstream_code,
                field=("input", written.fields[0]) if written.fields else None, retryable=written.retryable,
            )  # fmt: skip
        done = written.state in {"APPLIED", "UNCHANGED"}
        return TargetOutcome(
            source=source, kind=kind, state=written.state, native_id=written.native_id, changed=tuple(changed) if done else (),
            error=error,
        )  # fmt: skip

    def refusal(
        self, source: Source, kind: Kind, code: ErrorCode, message: str, *path: str, state: State = "REJECTED", retryable: bool = False,
        native_id: str | None = None,
    ) -> TargetOutcome:  # fmt: skip
        error = UserError(code=code, message=message, field=path or None, source=source, retryable=retryable)
        return TargetOutcome(source=source, kind=kind, state=state, native_id=native_id, error=error)

    def targets(self, kind: Kind, chosen: Sequence[Source]) -> list[Source]:
        """Return the sources to write to: those named, else `chosen`; mistakes go to `errors`."""
        named = self.options.targets
        if not named:  # [] is as good as nothing said: an answer without an outcome would look like one
            if not chosen:
                able = [each.id for each in self.context.sources if each.writes(kind, "upsert")]
                self.fault("VALIDATION", f"say in `targets` where to write; there are: {', '.join(able)}", "options", "targets")
            return list(chosen)
        found = []
        for id in dict.fromkeys(named):
            source = self.context.source(id)
            if source is None:
                self.fault("NOT_FOUND", f"there is no source {id!r}", "options", "targets")
            else:
                found.append(source)
        return found


async def performed(
    name: str, asked: Mapping[str, Any], options: Options, context: Context, work: Callable[[Effects], Awaitable[None]],
    *, holding: Sequence[str] = (),
) -> Effects:  # fmt: skip
    """Do a mutation's work once under its key, and return what became of it.

    The work goes on when the caller hangs up: what was begun is ended and entered.

    Args:
        asked: the mutation's input, for the digest: the same key with another input is a mistake.
        holding: names of which one request at a time may be at work, see `held`.

    Raises:
        CallerForbiddenError: the caller lacks the scope.
    """
    context.require(WRITE_SCOPE)
    digest = digest_of(name, asked, options.targets, options.if_version, options.on_duplicate)
    reading = Reading(deadline=context.clock.monotonic() + PATIENCE, lane="write")
    effects = Effects(context=context, options=options, digest=digest, reading=reading)
    if not 1 <= len(options.key) <= MAX_KEY or not options.key.isprintable():
        effects.fault(
            "VALIDATION", f"`idempotencyKey` must have 1 to {MAX_KEY} printable characters", "options", "idempotencyKey"
        )
        return effects
    if options.dry_run:
        await work(effects)
        return effects
    task = asyncio.create_task(_once(effects, work, holding))
    context.writer.working.add(task)
    task.add_done_callback(context.writer.working.discard)
    await asyncio.shield(task)
    return effects


async def _once(effects: Effects, work: Callable[[Effects], Awaitable[None]], holding: Sequence[str]) -> None:
    context, key = effects.context, effects.options.key
    effects.holder = context.writer.holder()
    try:
        for name in (f"key/{digest_of(key)}", *sorted(holding)):
            if not await effects.hold(name):
                return
        try:
            known = await context.writer.begin(key, OPERATION, effects.digest)
        except ConflictError as error:
            effects.fault("CONFLICT", error.message, "options", "idempotencyKey")
            return
        if known is not None and known.outcome is not None:
            _replay(effects, known.outcome)
            return
        await work(effects)
        await _remember(effects)
        if effects.writes and not any(each.error and each.error.retryable for each in effects.writes):
            await context.writer.end(key, OPERATION, _stored(effects))
        elif not effects.writes and known is None:
            await context.writer.ledger.forget(context.workspace, key, [OPERATION])  # nothing was begun: a mistake may be mended
    finally:
        for name in effects.holding:
            await context.writer.released(name, effects.holder)


async def _remember(effects: Effects) -> None:
    """Let the identity index know who was written: the system's own search may not know them yet."""
    context = effects.context
    refs = [each.ref for each in effects.writes if each.ref and each.kind in people.PERSON_KINDS and each.state == "APPLIED"]
    if refs:
        found = await people.by_refs(Fanout(context, fresh(context)), refs, frozenset())
        await context.index.observe(context.workspace, [Observed.of(person) for person in found])


def fresh(context: Context) -> Terms:
    """Return terms under which what was just written is read: with time of its own; caches know already that it was written."""
    return Terms(deadline=context.clock.monotonic() - context.started + 5.0)


def _failed(error: SourceError) -> Written:
    return Written(state="REJECTED", code=error.code, message=error.message, retryable=True)


def _stored(effects: Effects) -> dict[str, Any]:
    return {
        "writes": [
            {
                "source": each.source.id, "kind": each.kind, "state": each.state, "native_id": each.native_id, "changed": list(each.changed),
                "error": _stored_error(each.error),
            }
            for each in effects.writes
        ],
        "errors": [_stored_error(each) for each in effects.errors],
    }  # fmt: skip


def _stored_error(error: UserError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "code": error.code, "message": error.message, "field": list(error.field) if error.field else None,
        "source": error.source.id if error.source else None, "upstream_code": error.upstream_code,
    }  # fmt: skip


def _replay(effects: Effects, stored: Mapping[str, Any]) -> None:
    """Take what an earlier request came to; targets that were disconnected since are left out."""
    context = effects.context

    def error(said: Mapping[str, Any] | None) -> UserError | None:
        if said is None:
            return None
        return UserError(
            code=said["code"], message=said["message"], field=tuple(said["field"]) if said["field"] else None,
            source=context.source(said["source"]) if said["source"] else None, upstream_code=said["upstream_code"],
        )  # fmt: skip

    for each in stored["writes"]:
        if (source := context.source(each["source"])) is not None:
            effects.writes.append(
                TargetOutcome(
                    source=source, kind=each["kind"], state=each["state"], native_id=each["native_id"], changed=tuple(each["changed"]),
                    error=error(each["error"]),
                )
            )  # fmt: skip
    effects.errors += [found for each in stored["errors"] if (found := error(each)) is not None]
    effects.replayed = True


def held(what: str) -> str:
    """Return the name to hold for an address or an order: of one length, whatever a caller names."""
    return f"at/{digest_of(what)[:32]}"


def digest_of(*parts: Any) -> str:
    """Return a digest of plain data, the same for the same data."""
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()

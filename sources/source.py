"""One workspace's authorised account at a system, behind a few verbs that take and answer records.

Queries and background work use the same verbs, so cache, budget, retry and mapping are one path for both.
Every verb answers from the cache where the caller's terms allow, asks the system for the rest, and falls back to what
it still has when the system fails.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec
import orjson

from adapters.base import Adapter, Changes, Checked, CustomPage, FindKey, OrderField, Outcome, Position, Scan, Watch, Write
from adapters.wire import Request, Response
from adapters.writing import failed
from cache.entries import Cache, Entry
from mapping.compile import Compiled, compile_mapping
from mapping.native import spellings
from mapping.paths import pick
from mapping.spec import Document
from model.clock import Clock
from model.errors import MappingError, SourceError, UnsupportedError
from model.records import Account, CustomRecord, FieldMeta, Kind, ObjectType, Person, Record, Row
from sources.budget import Budget
from sources.reading import Answer, Reading, ReadState
from sources.transport import CALL, FAULT, Call
from sources.writing import RecordWrite, native_write, refused

State = Literal["CONNECTED", "PAUSED", "RECONNECT_REQUIRED", "DISCONNECTED"]
MAX_AGE = 60.0  # seconds a row counts as fresh unless the caller says otherwise
KEPT = 3600.0  # seconds a row is kept for when its system fails
METADATA_MAX_AGE = 900.0
METADATA_KEPT = 86_400.0
CUSTOM = "custom."  # a field name that asks for one custom field; "custom.*" asks for all
_FOUND_BY: dict[FindKey, tuple[str, ...]] = {"email": ("email", "emails"), "phone": ("phone", "phones"), "domain": ("domain",)}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Records of one parent or one key. `more`: the system has further ones that were not fetched."""

    records: list[Record]
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """One page of a scan.

    Attributes:
        rows: (place, record) in order; a record is None where the row did not fit its mapping.
        end: nothing comes after.
    """

    rows: list[tuple[Position, Record | None]]
    end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomValue:
    field: FieldMeta
    value: Any  # as the system gave it; options are labels


class Source:
    """See the module's text.

    Args:
        rank: orders sources in merged lists; lower comes first.
        base_url: what request paths are appended to.
    """

    def __init__(
        self, *, workspace: str, id: str, label: str, rank: int, adapter: Adapter, client: httpx.AsyncClient,
        auth: httpx.Auth, budget: Budget, cache: Cache, clock: Clock, state: State = "CONNECTED", reason: str | None = None,
        account: str | None = None,
    ) -> None:  # fmt: skip
        self.workspace, self.id, self.label, self.rank = workspace, id, label, rank
        self.adapter, self.budget = adapter, budget
        self.state, self.reason = state, reason
        self.account = account  # whose it is at its system, once that was asked
        self._client, self._auth, self._cache, self._clock = client, auth, cache, clock
        self._mappings = {kind: self._compiled(kind) for kind in adapter.kinds}
        self._spellings = {kind: spellings(facts.writes) for kind, facts in adapter.kinds.items()}
        self._describing: dict[str, asyncio.Lock] = {}
        self._followed: dict[Kind, float] = {}  # kind → until when, on the monotonic clock, changes are known to be heard of

    @property
    def system(self) -> str:
        return self.adapter.name

    def has(self, kind: Kind) -> bool:
        return kind in self.adapter.kinds

    def reads(self, kind: Kind) -> bool:
        """Tell whether records of a kind can be read by their ids."""
        return self.has(kind) and self.adapter.kinds[kind].read_batch > 0

    def relates(self, of: Kind, kind: Kind) -> bool:
        return (of, kind) in self.adapter.relations

    def finds(self, kind: Kind, key: FindKey) -> bool:
        return self.has(kind) and key in self.adapter.kinds[kind].find

    def unique(self, kind: Kind, key: FindKey) -> bool:
        return key in self.adapter.kinds[kind].unique

    def orders(self, kind: Kind, order: OrderField) -> bool:
        return self.has(kind) and order in self.adapter.kinds[kind].orders

    def writes(self, kind: Kind, verb: str) -> bool:
        """Tell whether records of a kind can be written; "upsert" always means find, then update or create, at the least."""
        if not self.has(kind):
            return False
        verbs = self.adapter.kinds[kind].verbs
        return {"create", "update"} <= verbs if verb == "upsert" else verb in verbs

    # ---- verbs ----

    async def check(self, reading: Reading) -> Checked:
        """Prove the credentials with the cheapest call; return whose they are."""
        return await self.adapter.check(_Api(self, reading))

    async def described(self, kind: Kind, reading: Reading) -> ObjectType:
        """Return the kind's metadata, from the cache while it is young or while the system fails."""
        return await self._metadata(kind, ObjectType, lambda: self.adapter.describe(_Api(self, reading), kind))

    async def objects(self, reading: Reading) -> list[ObjectType]:
        """Return the account's custom objects, from the cache as `described` does; [] where the system has no such thing."""
        if type(self.adapter).objects is Adapter.objects:
            return []
        return await self._metadata("", list[ObjectType], lambda: self.adapter.objects(_Api(self, reading)))

    async def _metadata(self, what: str, shape: type[T], ask: Callable[[], Awaitable[T]]) -> T:
        key = self._key("meta", what)
        async with self._describing.setdefault(what, asyncio.Lock()):
            [entry] = await self._cache.get_many([key])
            if entry is not None and entry.meta is not None and self._age(entry) <= METADATA_MAX_AGE:
                return msgspec.convert(entry.meta, shape)
            try:
                meta = await ask()
            except SourceError:
                if entry is None or entry.meta is None:
                    raise
                return msgspec.convert(entry.meta, shape)
            kept = Entry(rows=[], at=self._now(), meta=msgspec.to_builtins(meta))
            await self._cache.set_many({key: kept}, ttl=METADATA_KEPT)
            return meta

    async def read(
        self, kind: Kind, ids: Sequence[str], *, fields: Iterable[str], reading: Reading
    ) -> Answer[dict[str, Record | None]]:
        """Return the records by native id, None where the system has none.

        Args:
            fields: target fields wanted, and "custom.<key>" for custom ones.
        """
        wanted = list(dict.fromkeys(ids))

        async def ask(missing: Sequence[str], paths: Sequence[str]) -> list[Entry]:
            rows = await self.adapter.read(_Api(self, reading), kind, missing, paths)
            return [self._entry([row], paths) for row in rows]

        entries, state = await self._through_cache("r", kind, wanted, fields, reading, ask)
        records, lost = await self._records(kind, [entry.rows[0] if entry.rows else None for entry in entries], entries, reading)
        misfits = frozenset(
            id
            for id, entry, record in zip(wanted, entries, records, strict=True)
            if record is None and entry.rows and entry.rows[0] is not None
        )
        return replace(self._answer(dict(zip(wanted, records, strict=True)), entries, state, lost), misfits=misfits)

    async def find(
        self, kind: Kind, key: FindKey, values: Sequence[str], *, fields: Iterable[str], reading: Reading
    ) -> Answer[dict[str, list[Record]]]:
        """Return, for each normalised e-mail address or E.164 number, the live records that carry exactly it."""
        wanted = list(dict.fromkeys(values))
        lost = 0

        async def ask(missing: Sequence[str], paths: Sequence[str]) -> list[Entry]:
            nonlocal lost
            rows = await self.adapter.find(_Api(self, reading), kind, key, missing, paths)
            entry = self._entry([], paths)
            records, lost = await self._records(kind, rows, [entry] * len(rows), reading)
            carriers: dict[str, list[Row | None]] = {value: [] for value in missing}
            for row, record in zip(rows, records, strict=True):
                for value in set(_keys(record, key)) & carriers.keys():
                    carriers[value].append(row)
            return [self._entry(carriers[value], paths) for value in missing]

        names = [*fields, *_FOUND_BY[key]]
        entries, state = await self._through_cache(f"f.{key}", kind, wanted, names, reading, ask)
        found: dict[str, list[Record]] = {}
        for value, entry in zip(wanted, entries, strict=True):
            records, bad = await self._records(kind, entry.rows, [entry] * len(entry.rows), reading)
            lost += bad
            found[value] = [record for record in records if record is not None]
        return self._answer(found, entries, state, lost)

    async def related(
        self, kind: Kind, of: Kind, ids: Sequence[str], *, fields: Iterable[str], first: int, reading: Reading
    ) -> Answer[dict[str, Found]]:
        """Return, for each parent's native id, its records of `kind`."""
        wanted = list(dict.fromkeys(ids))

        async def ask(missing: Sequence[str], paths: Sequence[str]) -> list[Entry]:
            related = await self.adapter.related(_Api(self, reading), kind, of, missing, paths, first)
            return [self._entry(list(each.rows), paths, end=not each.more) for each in related]

        entries, state = await self._through_cache(f"l.{of}.{first}", kind, wanted, fields, reading, ask)
        found: dict[str, Found] = {}
        lost = 0
        for parent, entry in zip(wanted, entries, strict=True):
            records, bad = await self._records(kind, entry.rows, [entry] * len(entry.rows), reading)
            lost += bad
            found[parent] = Found(records=[record for record in records if record is not None], more=not entry.end)
        return self._answer(found, entries, state, lost)

    async def scan(self, kind: Kind, scan: Scan, *, fields: Iterable[str], reading: Reading) -> Answer[Walked]:
        """Return the next page of a kind in the order of `scan`; its `fields` are filled in here."""
        if not self.orders(kind, scan.order):
            raise UnsupportedError(f"{self.system} cannot list {kind} by {scan.order} time")
        after = f"{scan.after.at.isoformat()}~{scan.after.native_id}" if scan.after else ""
        span = (
            f"{scan.updated_since and scan.updated_since.isoformat()}~{scan.updated_before and scan.updated_before.isoformat()}"
        )
        page = f"{scan.order}~{scan.descending}~{scan.size}~{span}~{after}"

        async def ask(_: Sequence[str], paths: Sequence[str]) -> list[Entry]:
            asked = Scan(
                order=scan.order, descending=scan.descending, after=scan.after, updated_since=scan.updated_since,
                updated_before=scan.updated_before, size=scan.size, fields=paths,
            )  # fmt: skip
            found = await self.adapter.scan(_Api(self, reading), kind, asked)
            return [self._entry(list(found.rows), paths, end=found.end)]

        [entry], state = await self._through_cache("p", kind, [page], fields, reading, ask)
        records, lost = await self._records(kind, entry.rows, [entry] * len(entry.rows), reading)
        walked = Walked(rows=self._placed(kind, scan.order, entry.rows, records), end=entry.end)
        return self._answer(walked, [entry], state, lost)

    def _placed(
        self, kind: Kind, order: OrderField, rows: Sequence[Row | None], records: Sequence[Record | None]
    ) -> list[tuple[Position, Record | None]]:
        """Return each record with its place; a row that has none is left out."""
        placed: list[tuple[Position, Record | None]] = []
        for row, record in zip(rows, records, strict=True):
            try:
                native_id, created, updated = self._mappings[kind].place(row or {})
            except MappingError:
                continue
            at = created if order == "created" else updated
            if at is not None:
                placed.append((Position.of(at, native_id), record))
        return placed

    async def custom_values(self, record: Record, keys: Sequence[str] | None, reading: Reading) -> list[CustomValue]:
        """Return the custom fields of a record under their stable names, all of them when `keys` is None.

        Of a custom object's record every field is one. A key the system does not have is left out.
        """
        if isinstance(record, CustomRecord):
            fields = record.meta.fields
            some = fields.values() if keys is None else (fields[key] for key in keys if key in fields)
            return [CustomValue(field=each, value=_labelled(each, pick(record.row, each.path))) for each in some]
        meta = await self.described(record.kind, reading)
        named = meta.fields.values() if keys is None else (meta.fields[key] for key in keys if key in meta.fields)
        return [CustomValue(field=each, value=_labelled(each, pick(record.row, each.path))) for each in named if each.custom]

    async def write(self, kind: Kind, writes: Sequence[RecordWrite], reading: Reading) -> list[Outcome]:
        """Write records, and return one outcome each, in order; the fields an outcome names are target fields.

        Nothing is raised: a source that fails is the outcome of the writes that it kept from being done.
        """
        outcomes: dict[int, Outcome] = {}
        try:
            sent = await self._native_writes(kind, writes, outcomes, reading)
            if sent:
                done = await self.adapter.write(_Api(self, reading), kind, list(sent.values()))
                outcomes |= dict(zip(sent, done, strict=True))
        except SourceError as error:
            outcomes = {at: outcomes.get(at) or failed(error) for at in range(len(writes))}
        ids = [outcomes[at].native_id or each.native_id for at, each in enumerate(writes)]
        await self.touched(kind, [id for id in ids if id is not None])
        for other in {other for each in writes for other in each.links} - {kind}:
            await self.touched(other, ())
        return [self._in_target_fields(kind, outcomes[at]) for at in range(len(writes))]

    async def _native_writes(
        self, kind: Kind, writes: Sequence[RecordWrite], refusals: dict[int, Outcome], reading: Reading
    ) -> dict[int, Write]:
        """Return what is sent, by its place; what cannot be written goes to `refusals`."""
        if not self.has(kind):
            raise UnsupportedError(f"{self.system} has no {kind}")
        facts = self.adapter.kinds[kind]
        meta = await self.described(kind, reading) if any(each.needs_metadata for each in writes) else None
        sent: dict[int, Write] = {}
        for at, each in enumerate(writes):
            made = native_write(facts, self._spellings[kind], each, meta, currency=self.adapter.config.currency)
            if isinstance(made, Write):
                sent[at] = made
            else:
                refusals[at] = refused(made)
        return sent

    def _in_target_fields(self, kind: Kind, outcome: Outcome) -> Outcome:
        if not outcome.fields:
            return outcome
        spelled = {path: target for target, rule in self._spellings[kind].items() for path in rule.native_paths()}
        return replace(outcome, fields=[spelled.get(path, path) for path in outcome.fields])

    # ---- changes ----

    async def touched(self, kind: Kind, ids: Iterable[str]) -> None:
        """Hear that records changed at their system: what was fetched of them, and of any list of the kind, before now is too old.

        What is being fetched meanwhile counts as from before, so nothing old is kept in the place of what is new.
        """
        now = self._now()
        marks = {self._key("c", kind, id): Entry(rows=[], at=now) for id in ids}
        lag = self.adapter.kinds[kind].lag
        await self._cache.set_many({**marks, self._key("w", kind): Entry(rows=[], at=now + lag)}, ttl=KEPT + lag)

    def followed(self, kind: Kind, *, seconds: float) -> None:
        """Hear that changes of a kind were asked for just now, and will be again within `seconds`.

        Until then what is cached may be older than a minute, since whatever changes is `touched`. Lists of one parent are not: what a
        record is tied to can change without its own time moving.
        """
        self._followed[kind] = self._clock.monotonic() + seconds

    async def whole(self, kind: Kind, ids: Sequence[str], reading: Reading) -> tuple[dict[str, Record], frozenset[str]]:
        """Return records by native id with every field, custom ones too, as their system has them now, and the ids of those that it
        has and that do not fit their mapping. What is in neither is not there."""
        answer = await self.read(kind, ids, fields=await self._all_fields(kind, reading), reading=reading)
        return {id: record for id, record in answer.value.items() if record is not None}, answer.misfits

    async def everything(self, kind: Kind, scan: Scan, reading: Reading) -> Walked:
        """Return the next page of a kind, each record whole and as its system has it now; nothing of it is kept."""
        paths = sorted(await self._paths(kind, await self._all_fields(kind, reading), reading))
        began = self._now()
        page = await self.adapter.scan(_Api(self, reading), kind, replace(scan, fields=paths))
        entry = msgspec.structs.replace(self._entry([], paths), at=began)
        records, _ = await self._records(kind, page.rows, [entry] * len(page.rows), reading)
        return Walked(rows=self._placed(kind, scan.order, page.rows, records), end=page.end)

    async def changes(self, kind: Kind, cursor: str | None, reading: Reading) -> tuple[Changes, dict[str, Record]]:
        """Return what the system's feed tells since `cursor`, and the records that it brought, whole.

        Raises:
            CursorExpiredError: begin anew.
        """
        paths = sorted(await self._paths(kind, await self._all_fields(kind, reading), reading))
        began = self._now()
        said = await self.adapter.changes(_Api(self, reading), kind, cursor, paths, now=self._clock.now())
        brought = {change.native_id: change.row for change in said.changes if change.row is not None}
        entry = msgspec.structs.replace(self._entry([], paths), at=began)
        records, _ = await self._records(kind, list(brought.values()), [entry] * len(brought), reading)
        return said, {id: record for id, record in zip(brought, records, strict=True) if record is not None}

    async def forget(self) -> None:
        """Forget every row that is cached: nothing of a person who is to be erased may be shown again."""
        for verb in ("r\x1f", "p\x1f", "f.", "l."):
            await self._cache.drop(self._key(verb))

    async def named(self, kind: Kind, names: Sequence[str], reading: Reading) -> list[str | None]:
        """Return the native ids of records that webhooks name, see `Adapter.named`."""
        return await self.adapter.named(_Api(self, reading), kind, names)

    async def watch(self, url: str, secret: str, reading: Reading) -> list[Watch]:
        """Make the system send its changes to `url`, see `Adapter.watch`."""
        return await self.adapter.watch(_Api(self, reading), url, secret)

    async def unwatch(self, url: str, reading: Reading) -> int:
        return await self.adapter.unwatch(_Api(self, reading), url)

    async def _all_fields(self, kind: Kind, reading: Reading) -> tuple[str, ...]:
        names = tuple(self._mappings[kind].targets)
        try:
            await self.described(kind, reading)
        except UnsupportedError:
            return names
        return (*names, f"{CUSTOM}*")

    # ---- custom objects ----

    async def object_named(self, name: str, reading: Reading) -> ObjectType | None:
        """Return the custom object of that name, None when the account has none."""
        return next((each for each in await self.objects(reading) if each.name == name), None)

    async def read_custom(
        self, object: ObjectType, ids: Sequence[str], keys: Sequence[str] | None, reading: Reading
    ) -> list[CustomRecord | None]:
        """Return rows of a custom object in the order of `ids`, None where there is none.

        Args:
            keys: of the fields wanted, None for all.
        """
        rows = await self.adapter.read_custom(_Api(self, reading), object, ids, _custom_paths(object, keys))
        return [self._custom(object, row) if row is not None else None for row in rows]

    async def scan_custom(
        self, object: ObjectType, *, after: str | None, size: int, keys: Sequence[str] | None, reading: Reading
    ) -> tuple[list[CustomRecord], str | None]:
        """Return the next rows of a custom object, and what to name as `after` for those that follow; None at the end."""
        page: CustomPage = await self.adapter.scan_custom(
            _Api(self, reading), object, after=after, size=size, fields=_custom_paths(object, keys)
        )
        return [self._custom(object, row) for row in page.rows], page.next

    def _custom(self, object: ObjectType, row: Row) -> CustomRecord:
        return CustomRecord(
            source=self.id, system=self.system, object=object.name, native_id=str(pick(row, object.id_path)), row=row,
            fetched_at=self._clock.now(), meta=object,
        )  # fmt: skip

    # ---- how a verb goes through the cache ----

    async def _through_cache(
        self, verb: str, kind: Kind, wanted: Sequence[str], fields: Iterable[str], reading: Reading,
        ask: Callable[[Sequence[str], Sequence[str]], Awaitable[list[Entry]]],
    ) -> tuple[list[Entry], ReadState]:  # fmt: skip
        """Return one entry per wanted thing: young enough from the cache, else asked for, else stale, else raise."""
        if not self.has(kind):
            raise UnsupportedError(f"{self.system} has no {kind}")
        if not wanted:
            return [], "OK"
        needed = await self._paths(kind, fields, reading)
        keys = [self._key(verb, kind, each) for each in wanted]
        marked = [self._key("c", kind, each) for each in wanted] if verb == "r" else [self._key("w", kind)]
        found = await self._cache.get_many([*keys, *marked])
        kept, marks = found[: len(keys)], found[len(keys) :] * (1 if verb == "r" else len(keys))
        usable = [entry if entry is not None and needed <= entry.known else None for entry in kept]
        max_age = reading.max_age
        if max_age is None:
            max_age = KEPT if verb != "l" and self._followed.get(kind, 0.0) > self._clock.monotonic() else MAX_AGE
        # A record or a list that was fetched before a change was heard of is too old, whatever its age.
        usable_at = [mark.at if mark is not None else 0.0 for mark in marks]
        young = [
            entry is not None and reading.policy not in {"LIVE", "SURE"} and entry.at > since and self._age(entry) <= max_age
            for entry, since in zip(usable, usable_at, strict=True)
        ]
        missing = [at for at, is_young in enumerate(young) if not is_young]
        if reading.policy == "CACHE_ONLY":
            return [entry or Entry(rows=[], at=self._now()) for entry in usable], "PARTIAL" if missing else "CACHED"
        if not missing:
            return [entry for entry in usable if entry is not None], "CACHED"
        # What was known of a row stays known: two callers with different selections must not evict each other.
        paths = sorted(needed.union(*(entry.known for at in missing if (entry := kept[at]) is not None)))
        began = self._now()
        try:
            fetched = [msgspec.structs.replace(each, at=began) for each in await ask([wanted[at] for at in missing], paths)]
        except SourceError:
            if reading.policy == "SURE" or any(usable[at] is None for at in missing):
                raise
            return [entry for entry in usable if entry is not None], "STALE"
        fresh = dict(zip(missing, fetched, strict=True))
        await self._cache.set_many({keys[at]: entry for at, entry in fresh.items()}, ttl=KEPT)
        return [entry for at, kept_one in enumerate(usable) if (entry := fresh.get(at, kept_one)) is not None], "OK"

    async def _paths(self, kind: Kind, fields: Iterable[str], reading: Reading) -> frozenset[str]:
        wanted = tuple(fields)
        custom = {field.removeprefix(CUSTOM) for field in wanted if field.startswith(CUSTOM)}
        paths = frozenset(self._mappings[kind].paths(wanted))
        if not custom:
            return paths
        meta = await self.described(kind, reading)
        return paths | {each.path for each in meta.fields.values() if each.custom and (each.name in custom or "*" in custom)}

    async def _records(
        self, kind: Kind, rows: Sequence[Row | None], entries: Sequence[Entry], reading: Reading
    ) -> tuple[list[Record | None], int]:
        """Map rows; one that does not fit is None and counted."""
        mapping = self._mappings[kind]
        meta = await self.described(kind, reading) if mapping.needs_metadata and any(rows) else None
        records: list[Record | None] = []
        lost = 0
        for row, entry in zip(rows, entries, strict=True):
            try:
                records.append(mapping.record(row, meta, datetime.fromtimestamp(entry.at, tz=UTC)) if row is not None else None)
            except MappingError:
                records.append(None)
                lost += 1
        return records, lost

    def _answer(self, value: T, entries: Sequence[Entry], state: ReadState, lost: int) -> Answer[T]:
        oldest = min((entry.at for entry in entries), default=None)
        fetched_at = datetime.fromtimestamp(oldest, tz=UTC) if oldest is not None else None
        return Answer(value=value, state="PARTIAL" if lost and state == "OK" else state, fetched_at=fetched_at, lost=lost)

    def _compiled(self, kind: Kind) -> Compiled:
        facts, config = self.adapter.kinds[kind], self.adapter.config
        return compile_mapping(
            Document.model_validate({"fields": facts.mapping}), kind, source=self.id, system=self.system,
            native_object=facts.object, region=config.region, currency=config.currency, url=self.adapter.web_url,
        )  # fmt: skip

    def _entry(self, rows: list[Row | None], paths: Sequence[str], *, end: bool = False) -> Entry:
        return Entry(rows=rows, at=self._now(), known=frozenset(paths), end=end)

    def _key(self, *parts: str) -> str:
        return "\x1f".join((self.workspace, self.id, *parts))

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _age(self, entry: Entry) -> float:
        return self._now() - entry.at


class _Api:
    """What one verb call lends to the adapter."""

    def __init__(self, source: Source, reading: Reading) -> None:
        self._source, self._reading = source, reading

    async def send(self, request: Request) -> Response:
        source = self._source
        if self._reading.policy == "CACHE_ONLY":  # metadata, too: nothing is asked for
            raise UnsupportedError("not kept here, and the system is not to be asked")
        base = source.adapter.config.base_url
        body, kind = _body(request)
        sent = source._client.build_request(  # noqa: SLF001 - the other half of Source
            request.method,
            request.path if "://" in request.path else base + request.path,
            params=list(request.params) or None,
            content=body,
            headers={**({"content-type": kind} if kind else {}), **request.headers},
            extensions={CALL: Call(request, self._reading)},
        )
        answer = await source._client.send(sent, auth=source._auth)  # noqa: SLF001
        fault = answer.extensions.get(FAULT)
        if fault is not None:
            raise fault
        return Response(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    async def described(self, kind: Kind) -> ObjectType:
        return await self._source.described(kind, self._reading)

    def place(self, kind: Kind, row: Row) -> tuple[str, datetime | None, datetime | None]:
        return self._source._mappings[kind].place(row)  # noqa: SLF001


def _body(request: Request) -> tuple[bytes | None, str | None]:
    """Return the body of a request and its media type."""
    if request.form:
        return urlencode(request.form).encode(), "application/x-www-form-urlencoded"
    if request.json is not None:
        return orjson.dumps(request.json), "application/json"
    return request.body, None


def _keys(record: Record | None, key: FindKey) -> tuple[str, ...]:
    if isinstance(record, Account):
        return (record.domain or "",)
    if not isinstance(record, Person):
        return ()
    return (*record.emails, record.email or "") if key == "email" else (*record.phones, record.phone or "")


def _custom_paths(object: ObjectType, keys: Sequence[str] | None) -> list[str]:
    fields = object.fields.values() if keys is None else (object.fields[key] for key in keys if key in object.fields)
    return sorted({object.id_path, *(each.path for each in fields)})


def _labelled(field: FieldMeta, value: Any) -> Any:
    if not field.options or value is None:
        return value
    if isinstance(value, list):
        return [field.options.get(str(each), each) for each in value]
    return field.options.get(str(value), value)

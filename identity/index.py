"""The identity index: which customer each record belongs to, with ids that are minted once and keep resolving.

Who belongs together follows from the keys that records carry (`identity/rules.py`); who they are called follows from
the records that ids were minted for, their anchors: a component answers to every id whose anchor it holds, and shows
the oldest of them. So merges, splits and their undoing need no history, and the order of arrival does not matter.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from identity.rules import MAX_CARRIERS, Edge, Known, components, fold, is_common
from model.clock import Clock
from model.records import Person, Ref
from store import identity as rows
from store.database import Database
from store.identity import CustomerRow, RecordRow

PREFIX = "customer:"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LATEST = datetime.max.replace(tzinfo=UTC)
Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a record that was just read says about who it is."""

    ref: Ref
    emails: tuple[str, ...]
    phones: tuple[str, ...]
    family_name: str | None
    created_at: datetime | None

    @classmethod
    def of(cls, person: Person) -> "Observed":
        return cls(
            ref=person.ref,
            emails=tuple(sorted({*person.emails, *((person.email,) if person.email else ())})),
            phones=tuple(sorted({*person.phones, *((person.phone,) if person.phone else ())})),
            family_name=fold(person.family_name),
            created_at=person.created_at,
        )

    @property
    def keys(self) -> set[Key]:
        return {("email", each) for each in self.emails} | {("phone", each) for each in self.phones}

    @property
    def digest(self) -> str:
        said = repr((self.emails, self.phones, self.family_name, self.created_at))
        return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    ref: Ref
    created_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Why two records are one person."""

    a: Ref
    b: Ref
    method: str
    score: float
    evidence: dict[str, str]
    at: datetime
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """One customer as the index knows it.

    Attributes:
        refs: by (created, source, kind, id).
        merged_from: former ids that resolve here.
    """

    id: str
    refs: tuple[Member, ...]
    merged_from: tuple[str, ...]
    links: tuple[Link, ...]


def minter(clock: Clock, rng: random.Random) -> Callable[[], str]:
    """Return a function that makes customer ids whose text order is their order of birth (48 bits of ms, 80 of chance)."""

    def mint() -> str:
        number = (int(clock.now().timestamp() * 1000) << 80) | rng.getrandbits(80)
        return PREFIX + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -5, -5))

    return mint


class IdentityIndex:
    """See the module's text. All methods take many and answer in a few statements.

    Attributes:
        moves: counts up whenever this process has made an id resolve to another customer.
    """

    def __init__(self, database: Database, *, clock: Clock, mint: Callable[[], str]) -> None:
        self._database, self._clock, self._mint = database, clock, mint
        self.moves = 0

    async def observe(self, workspace: str, seen: Sequence[Observed]) -> dict[Ref, str]:
        """Record what was read, and return each record's customer id.

        Nothing is written when nothing new was said.
        """
        said = {each.ref: each for each in seen}
        async with self._database.read() as connection:
            known = await rows.records(connection, workspace, said)
        if not _changed(said.values(), known):
            return {ref: row.customer for ref, row in known.items()}
        async with self._database.write() as connection:
            return await self.observe_in(connection, workspace, seen)

    async def observe_in(
        self, connection: AsyncConnection, workspace: str, seen: Sequence[Observed], gone: Iterable[Ref] = ()
    ) -> dict[Ref, str]:
        """Do what `observe` does, and forget what is gone, in the caller's transaction. Return the customers of both, the latter's last."""
        said = {each.ref: each for each in seen}
        await rows.lock(connection)
        lost = await rows.records(connection, workspace, gone)
        if lost:
            await rows.remove_records(connection, workspace, list(lost))
            await self._settle(connection, workspace, (), {row.customer for row in lost.values()})
        known = await rows.records(connection, workspace, said)
        if changed := _changed(said.values(), known):
            known |= await self._settle(connection, workspace, changed, ())
        return {ref: known[ref].customer for ref in said} | {ref: row.customer for ref, row in lost.items()}

    async def customers_of(self, connection: AsyncConnection, workspace: str, refs: Iterable[Ref]) -> dict[Ref, str]:
        """Return the customers of records that the index knows."""
        return {ref: row.customer for ref, row in (await rows.records(connection, workspace, refs)).items()}

    async def members(self, workspace: str, ids: Iterable[str]) -> dict[str, Members]:
        """Return, for each id that was ever minted, the customer it resolves to now; unknown ids are absent."""
        async with self._database.read() as connection:
            named = {row.id: row.survivor for row in await rows.named(connection, workspace, list(dict.fromkeys(ids)))}
            survivors = list(dict.fromkeys(named.values()))
            records = await rows.records_of(connection, workspace, survivors)
            keys = await rows.keys(connection, workspace, records)
            common = await rows.common(connection, workspace, {key for each in keys.values() for key in each}, MAX_CARRIERS)
            minted = await rows.minted(connection, workspace, survivors)
        grouped: dict[str, list[RecordRow]] = {survivor: [] for survivor in survivors}
        for row in records.values():
            grouped[row.customer].append(row)
        former: dict[str, list[str]] = {}
        for each in minted:
            if each.id != each.survivor:
                former.setdefault(each.survivor, []).append(each.id)
        telling = {ref: each - common for ref, each in keys.items()}
        built = {id: _members(id, found, telling, sorted(former.get(id, ()))) for id, found in grouped.items()}
        return {id: built[survivor] for id, survivor in named.items()}

    async def aliases(self, workspace: str, ids: Iterable[str]) -> dict[str, frozenset[str]]:
        """Return, for each id that was ever minted, every id that names the same customer now; unknown ids are absent."""
        async with self._database.read() as connection:
            named = {row.id: row.survivor for row in await rows.named(connection, workspace, list(dict.fromkeys(ids)))}
            minted = await rows.minted(connection, workspace, list(dict.fromkeys(named.values())))
        names: dict[str, set[str]] = {}
        for row in minted:
            names.setdefault(row.survivor, set()).add(row.id)
        return {id: frozenset({id, *names.get(survivor, ())}) for id, survivor in named.items()}

    async def keys(self, workspace: str, refs: Sequence[Ref]) -> tuple[list[str], list[str]]:
        """Return the e-mail addresses and phone numbers that these records carry."""
        async with self._database.read() as connection:
            known = await rows.keys(connection, workspace, refs)
        carried = {key for each in known.values() for key in each}
        return sorted(value for kind, value in carried if kind == "email"), sorted(
            value for kind, value in carried if kind == "phone"
        )

    async def carrying(self, workspace: str, emails: Sequence[str], phones: Sequence[str]) -> set[Ref]:
        """Return the records the index knows with any of these normalised keys."""
        wanted = [*(("email", each) for each in emails), *(("phone", each) for each in phones)]
        async with self._database.read() as connection:
            found = await rows.carriers(connection, workspace, wanted)
        return {ref for refs in found.values() for ref in refs}

    async def forget(self, workspace: str, refs: Sequence[Ref]) -> None:
        """Drop records that their systems no longer have; what held together only through them comes apart."""
        async with self._database.write() as connection:
            await self.observe_in(connection, workspace, (), refs)

    async def _settle(
        self, connection: AsyncConnection, workspace: str, changed: Sequence[Observed], touched: Iterable[str]
    ) -> dict[Ref, RecordRow]:
        """Work out anew who is who around the changed records, and write what is different. Return the neighbourhood."""
        before, keys = await self._neighbourhood(connection, workspace, changed, touched)
        surnames = {ref: row.surname for ref, row in before.items()} | {each.ref: each.family_name for each in changed}
        created = {ref: row.created_at for ref, row in before.items()} | {each.ref: each.created_at for each in changed}
        groups, _ = components(_known(ref, keys.get(ref, set()), surnames[ref]) for ref in surnames)
        old = await rows.minted(connection, workspace, {row.customer for row in before.values()} | set(touched))
        names, ids = self._named(groups, old, created, {ref: row.customer for ref, row in before.items()})
        now = self._clock.now()
        digests = {each.ref: each.digest for each in changed}
        after = {
            ref: RecordRow(
                ref=ref, customer=names[ref], surname=surnames[ref], created_at=created[ref],
                seen_at=now if ref in digests else before[ref].seen_at, digest=digests.get(ref) or before[ref].digest,
            )
            for ref in surnames
        }  # fmt: skip
        await rows.replace_records(
            connection,
            workspace,
            [row for ref, row in after.items() if before.get(ref) != row],
            {each.ref: each.keys for each in changed},
        )
        unchanged = {row.id: row for row in old}
        await rows.replace_customers(connection, workspace, [row for row in ids if unchanged.get(row.id) != row])
        if any(row.id in unchanged and unchanged[row.id].survivor != row.survivor for row in ids):
            self.moves += 1
        return after

    async def _neighbourhood(
        self, connection: AsyncConnection, workspace: str, changed: Sequence[Observed], touched: Iterable[str]
    ) -> tuple[dict[Ref, RecordRow], dict[Ref, set[Key]]]:
        """Return all records that could be linked with the changed ones, closed under shared keys, and their telling keys."""
        keys: dict[Ref, set[Key]] = {each.ref: each.keys for each in changed}
        before = await rows.records(connection, workspace, keys)
        customers = {row.customer for row in before.values()} | set(touched)
        asked: set[Key] = set()
        common: set[Key] = set()
        while True:
            beside = await rows.records_of(connection, workspace, customers)
            fresh = {key for each in keys.values() for key in each} - asked
            asked |= fresh
            found = await rows.carriers(connection, workspace, sorted(fresh))
            # An identifier that many carry says nothing; following it would drag in strangers without end.
            common |= {key for key, refs in found.items() if is_common(refs, beside=len(changed))}
            near = {ref for key, refs in found.items() if key not in common for ref in refs}
            missing = (near | beside.keys()) - keys.keys()
            if not missing:
                return before | beside, {ref: each - common for ref, each in keys.items()}
            added = await rows.records(connection, workspace, missing)
            before |= added
            customers |= {row.customer for row in added.values()}
            loaded = await rows.keys(connection, workspace, missing)
            keys |= {ref: loaded.get(ref, set()) for ref in missing}

    def _named(
        self,
        groups: Sequence[Sequence[Ref]],
        old: Sequence[CustomerRow],
        created: dict[Ref, datetime | None],
        was: dict[Ref, str],
    ) -> tuple[dict[Ref, str], list[CustomerRow]]:
        """Return each record's customer, and every id's row."""
        group_of = {ref: at for at, group in enumerate(groups) for ref in group}
        owned: dict[int, list[CustomerRow]] = {}
        for row in old:
            anchor: Ref | None = row.anchor
            if anchor not in group_of:  # the record is gone: its id goes to the oldest one that shared the customer
                heirs = [ref for ref, customer in was.items() if customer == row.survivor and ref in group_of]
                anchor = min(heirs, key=lambda ref: _age(ref, created), default=None)
            if anchor is not None:
                owned.setdefault(group_of[anchor], []).append(CustomerRow(id=row.id, survivor=row.survivor, anchor=anchor))
        names: dict[Ref, str] = {}
        ids: list[CustomerRow] = []
        for at, group in enumerate(groups):
            mine = owned.get(at, [])
            if not mine:
                anchor = min(group, key=lambda ref: _age(ref, created))
                id = self._mint()
                mine = [CustomerRow(id=id, survivor=id, anchor=anchor)]
            survivor = min(row.id for row in mine)
            ids += [CustomerRow(id=row.id, survivor=survivor, anchor=row.anchor) for row in mine]
            names |= dict.fromkeys(group, survivor)
        return names, ids


def _changed(seen: Iterable[Observed], known: dict[Ref, RecordRow]) -> list[Observed]:
    return [each for each in seen if each.ref not in known or known[each.ref].digest != each.digest]


def _known(ref: Ref, keys: set[Key], surname: str | None) -> Known:
    return Known(
        ref=ref, surname=surname,
        emails=tuple(sorted(value for type_, value in keys if type_ == "email")),
        phones=tuple(sorted(value for type_, value in keys if type_ == "phone")),
    )  # fmt: skip


def _members(id: str, found: Sequence[RecordRow], keys: dict[Ref, set[Key]], former: Sequence[str]) -> Members:
    by_ref = {row.ref: row for row in found}
    created = {row.ref: row.created_at for row in found}
    _, edges = components(_known(row.ref, keys.get(row.ref, set()), row.surname) for row in found)
    ordered = sorted(found, key=lambda row: _age(row.ref, created))
    return Members(
        id=id,
        refs=tuple(Member(ref=row.ref, created_at=row.created_at) for row in ordered),
        merged_from=tuple(former),
        links=tuple(_link(edge, by_ref) for edge in edges),
    )


def _link(edge: Edge, by_ref: dict[Ref, RecordRow]) -> Link:
    kind = "email" if edge.method == "EXACT_EMAIL" else "phone"
    at = max(by_ref[edge.a].seen_at, by_ref[edge.b].seen_at)
    return Link(a=edge.a, b=edge.b, method=edge.method, score=edge.score, evidence={kind: edge.evidence}, at=at)


def _age(ref: Ref, created: dict[Ref, datetime | None]) -> tuple[datetime, Ref]:
    return (created.get(ref) or _LATEST, ref)

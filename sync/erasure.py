"""Erasing a person: everything kept here about records of theirs, in the store and in the caches.

What is left: their systems' own records, which are theirs to erase; the ledger, which holds digests; numbers of events that are no more.
"""

from collections.abc import Iterable, Sequence
from urllib.parse import unquote_plus

from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from credentials.vault import Vault
from identity.index import IdentityIndex
from model.records import Ref
from sources.registry import Registry
from store.database import Database
from store.endpoints import forget
from store.identity import keys as keys_of
from store.tables import dead_letters, events, inbox, versions
from sync.envelope import trace_of


class Erasure:
    def __init__(self, database: Database, index: IdentityIndex, vault: Vault, registry: Registry) -> None:
        self._database, self._index, self._vault, self._registry = database, index, vault, registry

    async def customer(self, workspace: str, id: str) -> int:
        """Erase a customer with every record that is linked to them; return how many records were known."""
        found = (await self._index.members(workspace, [id])).get(id)
        refs = [member.ref for member in found.refs] if found is not None else []
        await self.records(workspace, refs, customers=[id, *([found.id] if found is not None else [])])
        return len(refs)

    async def records(self, workspace: str, refs: Sequence[Ref], *, customers: Iterable[str] = ()) -> None:
        """Erase what is kept about records."""
        async with self._database.write() as connection:
            said = {value for found in (await keys_of(connection, workspace, refs)).values() for _, value in found}
            for table in (inbox, events, versions, dead_letters):
                if refs:
                    await connection.execute(delete(table).where(table.c.workspace == workspace, _any(table, refs)))
            await forget(connection, workspace, [trace_of(ref) for ref in refs])
            theirs = and_(events.c.workspace == workspace, events.c.customer.in_(list(customers)))
            await connection.execute(update(events).where(theirs).values(customer=None))
            sealed = select(dead_letters.c.id, dead_letters.c.sealed).where(
                dead_letters.c.workspace == workspace, dead_letters.c.sealed.is_not(None)
            )
            traces = {*said, *(ref.native_id for ref in refs)}
            for letter, body in (await connection.execute(sealed)).all():
                if self._mentions(workspace, letter, body, traces):
                    one = and_(dead_letters.c.workspace == workspace, dead_letters.c.id == letter)
                    await connection.execute(delete(dead_letters).where(one))
            await self._index.observe_in(connection, workspace, (), refs)
        of = {ref.source for ref in refs}
        for source in self._registry.of(workspace):
            if source.id in of:
                await source.forget()

    def _mentions(self, workspace: str, letter: str, sealed: bytes, traces: Iterable[str]) -> bool:
        plain = self._vault.open(sealed, bound_to=f"letter:{workspace}:{letter}").decode(errors="replace").lower()
        plain += unquote_plus(plain)  # some systems send forms
        return any(trace.lower() in plain for trace in traces)


def _any(table: object, refs: Sequence[Ref]) -> ColumnElement[bool]:
    columns = table.c  # type: ignore[attr-defined]
    return or_(
        *(and_(columns.source == ref.source, columns.kind == ref.kind, columns.native_id == ref.native_id) for ref in refs)
    )

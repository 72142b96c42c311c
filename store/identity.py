"""The identity index's rows. Every statement takes many; nothing here decides anything."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from model.records import Kind, Ref
from store.tables import customers, identity_keys, identity_records

T = TypeVar("T")
_CHUNK = 200  # rows per statement; SQLite binds at most 32,766 values
_LOCK = 0x_C361


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRow:
    ref: Ref
    customer: str
    surname: str | None
    created_at: datetime | None
    seen_at: datetime
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerRow:
    """An id that was minted. `survivor`: the id it resolves to now; `anchor`: the record it was minted for."""

    id: str
    survivor: str
    anchor: Ref


async def lock(connection: AsyncConnection) -> None:
    """Let one writer at a time decide who is who (SQLite has only one anyway)."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


async def records(connection: AsyncConnection, workspace: str, refs: Iterable[Ref]) -> dict[Ref, RecordRow]:
    found: dict[Ref, RecordRow] = {}
    for some in _chunks(list(refs)):
        query = select(identity_records).where(identity_records.c.workspace == workspace, _among(identity_records, some))
        found |= {row.ref: row for row in map(_record, (await connection.execute(query)).mappings())}
    return found


async def records_of(connection: AsyncConnection, workspace: str, customer_ids: Iterable[str]) -> dict[Ref, RecordRow]:
    """Return all records of these (surviving) customers."""
    found: dict[Ref, RecordRow] = {}
    for some in _chunks(list(customer_ids)):
        query = select(identity_records).where(identity_records.c.workspace == workspace, identity_records.c.customer.in_(some))
        found |= {row.ref: row for row in map(_record, (await connection.execute(query)).mappings())}
    return found


async def keys(connection: AsyncConnection, workspace: str, refs: Iterable[Ref]) -> dict[Ref, set[tuple[str, str]]]:
    """Return each record's (type, value) keys; records without any are absent."""
    found: dict[Ref, set[tuple[str, str]]] = {}
    for some in _chunks(list(refs)):
        query = select(identity_keys).where(identity_keys.c.workspace == workspace, _among(identity_keys, some))
        for row in (await connection.execute(query)).mappings():
            found.setdefault(_ref(row), set()).add((row["type"], row["value"]))
    return found


async def carriers(
    connection: AsyncConnection, workspace: str, values: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], list[Ref]]:
    """Return the records that carry each (type, value)."""
    found: dict[tuple[str, str], list[Ref]] = {}
    for some in _chunks(list(values)):
        query = select(identity_keys).where(
            identity_keys.c.workspace == workspace, tuple_(identity_keys.c.type, identity_keys.c.value).in_(some)
        )
        for row in (await connection.execute(query)).mappings():
            found.setdefault((row["type"], row["value"]), []).append(_ref(row))
    return found


async def common(
    connection: AsyncConnection, workspace: str, values: Iterable[tuple[str, str]], more_than: int
) -> set[tuple[str, str]]:
    """Return those keys that more than so many records of one source and kind carry."""
    found: set[tuple[str, str]] = set()
    for some in _chunks(list(values)):
        key = (identity_keys.c.type, identity_keys.c.value)
        query = (
            select(*key)
            .where(identity_keys.c.workspace == workspace, tuple_(*key).in_(some))
            .group_by(*key, identity_keys.c.source, identity_keys.c.kind)
            .having(func.count() > more_than)
        )
        found |= {(type_, value) for type_, value in (await connection.execute(query)).all()}
    return found


async def replace_records(
    connection: AsyncConnection, workspace: str, rows: Sequence[RecordRow], row_keys: dict[Ref, set[tuple[str, str]]]
) -> None:
    """Write records whole, and the keys of those named in `row_keys`."""
    await remove_records(connection, workspace, [row.ref for row in rows], with_keys=False)
    for some in _chunks(rows):
        await connection.execute(
            insert(identity_records),
            [
                {
                    "workspace": workspace, "source": row.ref.source, "kind": row.ref.kind, "native_id": row.ref.native_id,
                    "customer": row.customer, "surname": row.surname, "created_at": row.created_at, "seen_at": row.seen_at,
                    "digest": row.digest,
                }
                for row in some
            ],
        )  # fmt: skip
    for refs in _chunks(list(row_keys)):
        await connection.execute(delete(identity_keys).where(identity_keys.c.workspace == workspace, _among(identity_keys, refs)))
        values = [
            {
                "workspace": workspace,
                "source": ref.source,
                "kind": ref.kind,
                "native_id": ref.native_id,
                "type": type_,
                "value": value,
            }
            for ref in refs
            for type_, value in sorted(row_keys[ref])
        ]
        if values:
            await connection.execute(insert(identity_keys), values)


async def remove_records(connection: AsyncConnection, workspace: str, refs: Sequence[Ref], *, with_keys: bool = True) -> None:
    for some in _chunks(refs):
        for table in (identity_records, identity_keys) if with_keys else (identity_records,):
            await connection.execute(delete(table).where(table.c.workspace == workspace, _among(table, some)))


async def minted(connection: AsyncConnection, workspace: str, survivors: Iterable[str]) -> list[CustomerRow]:
    """Return every id that resolves to one of these survivors."""
    return await _customers(connection, workspace, customers.c.survivor, survivors)


async def named(connection: AsyncConnection, workspace: str, ids: Iterable[str]) -> list[CustomerRow]:
    """Return the rows of these ids."""
    return await _customers(connection, workspace, customers.c.id, ids)


async def replace_customers(connection: AsyncConnection, workspace: str, rows: Sequence[CustomerRow]) -> None:
    for some in _chunks(rows):
        ids = [row.id for row in some]
        await connection.execute(delete(customers).where(customers.c.workspace == workspace, customers.c.id.in_(ids)))
        await connection.execute(
            insert(customers),
            [
                {
                    "workspace": workspace, "id": row.id, "survivor": row.survivor, "source": row.anchor.source,
                    "kind": row.anchor.kind, "native_id": row.anchor.native_id,
                }
                for row in some
            ],
        )  # fmt: skip


async def _customers(connection: AsyncConnection, workspace: str, column: Any, values: Iterable[str]) -> list[CustomerRow]:
    found: list[CustomerRow] = []
    for some in _chunks(list(values)):
        query = select(customers).where(customers.c.workspace == workspace, column.in_(some))
        found += [
            CustomerRow(id=row["id"], survivor=row["survivor"], anchor=_ref(row))
            for row in (await connection.execute(query)).mappings()
        ]
    return found


def _record(row: Any) -> RecordRow:
    return RecordRow(
        ref=_ref(row), customer=row["customer"], surname=row["surname"], created_at=row["created_at"],
        seen_at=row["seen_at"], digest=row["digest"],
    )  # fmt: skip


def _ref(row: Any) -> Ref:
    kind: Kind = row["kind"]
    return Ref(row["source"], kind, row["native_id"])


def _among(table: Any, refs: Sequence[Ref]) -> ColumnElement[bool]:
    """Match (source, kind, native_id), grouped so that the index serves it."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for ref in refs:
        grouped.setdefault((ref.source, ref.kind), []).append(ref.native_id)
    return or_(
        *(
            and_(table.c.source == source, table.c.kind == kind, table.c.native_id.in_(ids))
            for (source, kind), ids in grouped.items()
        )
    )


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK))

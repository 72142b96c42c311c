"""What was applied of each record: its time, and marks of its fields that tell whether one changed, and hold no value."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from model.records import Ref
from store.database import Database
from store.tables import versions

_CHUNK = 200


class Version(Struct, frozen=True, kw_only=True):
    """
    Attributes:
        updated_at: when the record changed last, as its system tells it.
        gone: it was deleted, or merged into another.
        marks: field → keyed hash of its value.
    """

    ref: Ref
    updated_at: datetime | None
    applied_at: datetime
    gone: bool = False
    marks: Mapping[str, str] = {}


class VersionRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, workspace: str, source: str, kind: str) -> int:
        """Return how many live records are known."""
        live = (versions.c.workspace == workspace, versions.c.source == source, versions.c.kind == kind, ~versions.c.gone)
        async with self._database.read() as connection:
            return int((await connection.execute(select(func.count()).select_from(versions).where(*live))).scalar_one())

    async def seen(self, workspace: str, refs: Sequence[Ref], *, at: datetime) -> None:
        """Enter that a listing showed these records."""
        async with self._database.write() as connection:
            for some in _chunks(sorted(set(refs))):
                one = update(versions).where(versions.c.workspace == workspace, _among(some))
                await connection.execute(one.values(seen_at=at))

    async def unseen(self, workspace: str, source: str, kind: str, *, since: datetime) -> list[str]:
        """Return native ids of live records that no listing showed since, and nothing was applied to since."""
        old = or_(versions.c.seen_at.is_(None), versions.c.seen_at < since)
        query = select(versions.c.native_id).where(
            versions.c.workspace == workspace, versions.c.source == source, versions.c.kind == kind, ~versions.c.gone, old,
            versions.c.applied_at < since,
        )  # fmt: skip
        async with self._database.read() as connection:
            return list((await connection.execute(query.order_by(versions.c.native_id))).scalars())

    async def known(self, workspace: str, refs: Iterable[Ref]) -> dict[Ref, Version]:
        async with self._database.read() as connection:
            return await known(connection, workspace, refs)


async def known(connection: AsyncConnection, workspace: str, refs: Iterable[Ref], *, lock: bool = False) -> dict[Ref, Version]:
    """Return what was applied of these records; with `lock` nobody else applies to them until the transaction ends."""
    found: dict[Ref, Version] = {}
    for some in _chunks(sorted(set(refs))):
        query = select(versions).where(versions.c.workspace == workspace, _among(some))
        if lock:
            query = query.order_by(versions.c.source, versions.c.kind, versions.c.native_id).with_for_update()
        for row in (await connection.execute(query)).mappings():
            ref = Ref(row["source"], row["kind"], row["native_id"])
            found[ref] = Version(
                ref=ref, updated_at=row["updated_at"], applied_at=row["applied_at"], gone=row["gone"], marks=row["marks"]
            )
    return found


async def put(connection: AsyncConnection, workspace: str, applied: Sequence[Version]) -> None:
    """Enter what is applied now in the place of what was before."""
    for some in _chunks(applied):
        await remove(connection, workspace, [each.ref for each in some])
        await connection.execute(insert(versions), [_row(workspace, each) for each in some])


async def remove(connection: AsyncConnection, workspace: str, refs: Iterable[Ref]) -> None:
    for some in _chunks(sorted(set(refs))):
        await connection.execute(delete(versions).where(versions.c.workspace == workspace, _among(some)))


def _row(workspace: str, version: Version) -> dict[str, Any]:
    return {
        "workspace": workspace, "source": version.ref.source, "kind": version.ref.kind, "native_id": version.ref.native_id,
        "updated_at": version.updated_at, "applied_at": version.applied_at, "gone": version.gone, "marks": dict(version.marks),
    }  # fmt: skip


def _among(refs: Sequence[Ref]) -> Any:
    kinds = {(ref.source, ref.kind) for ref in refs}
    if len(kinds) == 1:  # by far the usual case, and one that indexes serve best
        [(source, kind)] = kinds
        return and_(
            versions.c.source == source, versions.c.kind == kind, versions.c.native_id.in_([ref.native_id for ref in refs])
        )
    return tuple_(versions.c.source, versions.c.kind, versions.c.native_id).in_([(r.source, r.kind, r.native_id) for r in refs])


def _chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))

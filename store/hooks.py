"""What is known of each app's webhooks: the secrets they are proved with, and the subscriptions there are."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from msgspec import Struct
from sqlalchemy import delete, insert, select, update

from store.database import Database
from store.tables import hooks

HookState = Literal["MANUAL", "WATCHED", "FAILED", "OFF"]


class HookRow(Struct, frozen=True, kw_only=True):
    """One app's webhooks.

    Attributes:
        app: names it in the address; a source's own app has the source's id.
        version: one more with each writing; `sealed` is bound to it.
        state: MANUAL: an administrator enters address and secret. WATCHED: subscribed at the system. FAILED: it refused, see `reason`.
            OFF: ended.
        watches: the system's ids of the subscriptions.
        checked_at: when they were looked after last; heard_at: when a delivery came last.
        expires_at: when the first of them ends.
    """

    workspace: str
    app: str
    system: str
    version: int
    sealed: bytes
    state: HookState
    reason: str | None = None
    watches: Sequence[str] = ()
    checked_at: datetime | None = None
    expires_at: datetime | None = None
    heard_at: datetime | None = None


class HookRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[HookRow]:
        async with self._database.read() as connection:
            return [HookRow(**row) for row in (await connection.execute(select(hooks))).mappings()]

    async def put(self, row: HookRow) -> bool:
        """Write `row.version` in the place of the one before it; False when another process was faster."""
        one = (hooks.c.workspace == row.workspace, hooks.c.app == row.app)
        values: dict[str, Any] = {name: getattr(row, name) for name in row.__struct_fields__} | {"watches": list(row.watches)}
        async with self._database.write() as connection:
            known = (await connection.execute(select(hooks.c.version).where(*one).with_for_update())).scalar()
            if (known or 0) != row.version - 1:
                return False
            await connection.execute(delete(hooks).where(*one))
            await connection.execute(insert(hooks).values(**values))
            return True

    async def heard(self, workspace: str, app: str, *, now: datetime) -> None:
        change = update(hooks).where(hooks.c.workspace == workspace, hooks.c.app == app).values(heard_at=now)
        async with self._database.write() as connection:
            await connection.execute(change)

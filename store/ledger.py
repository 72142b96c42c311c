"""The ledger of writes: what was begun under an idempotency key, and what became of it.

A row is durable before its call leaves. It holds a digest of the request, never its values: whoever repeats the key
brings them again. A row that says BEGUN after its process is gone means: perhaps carried out, look it up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import and_, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from store.database import Database
from store.tables import leases, ledger

_CHUNK = 500  # rows per statement
LedgerState = Literal["BEGUN", "DONE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One step of one key. `outcome` is plain data, None while BEGUN."""

    step: str
    digest: str
    state: LedgerState
    outcome: Mapping[str, Any] | None
    begun_at: datetime


class LedgerRows:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, workspace: str, key: str, steps: Mapping[str, str], *, now: datetime) -> dict[str, LedgerRow]:
        """Enter the steps (step → digest) that are not there yet; return those that were there before, by step."""
        async with self._database.write() as connection:
            known: dict[str, LedgerRow] = {}
            names = list(steps)
            for at in range(0, len(names), _CHUNK):
                some = names[at : at + _CHUNK]
                query = select(ledger).where(ledger.c.workspace == workspace, ledger.c.key == key, ledger.c.step.in_(some))
                known |= {row["step"]: _row(row) for row in (await connection.execute(query)).mappings()}
            fresh = [
                {"workspace": workspace, "key": key, "step": step, "digest": digest, "state": "BEGUN", "begun_at": now}
                for step, digest in steps.items()
                if step not in known
            ]
            if fresh:
                await connection.execute(insert(ledger), fresh)
        return known

    async def end(self, workspace: str, key: str, outcomes: Mapping[str, Mapping[str, Any]], *, now: datetime) -> None:
        """Keep what became of steps; they are DONE then."""
        async with self._database.write() as connection:
            for step, outcome in outcomes.items():
                change = update(ledger).where(_one(workspace, key, step))
                await connection.execute(change.values(state="DONE", outcome=dict(outcome), ended_at=now))

    async def renew(self, workspace: str, key: str, steps: Sequence[str], *, now: datetime) -> None:
        """Enter that steps are begun once more: what is sent again has its time to appear again."""
        if not steps:
            return
        async with self._database.write() as connection:
            for step in steps:
                await connection.execute(update(ledger).where(_one(workspace, key, step)).values(begun_at=now))

    async def forget(self, workspace: str, key: str, steps: Sequence[str]) -> None:
        """Take back steps that were not carried out, so that the same key may try again."""
        async with self._database.write() as connection:
            for step in steps:
                await connection.execute(delete(ledger).where(_one(workspace, key, step)))

    async def row(self, workspace: str, key: str, step: str) -> LedgerRow | None:
        async with self._database.read() as connection:
            found = (await connection.execute(select(ledger).where(_one(workspace, key, step)))).mappings().first()
        return _row(found) if found else None

    async def clear(self, *, before: datetime, keeping: str) -> int:
        """Forget what ended before, but keys that begin with `keeping`; return how many steps that were."""
        old = and_(ledger.c.state == "DONE", ledger.c.ended_at < before, ~ledger.c.key.startswith(keeping, autoescape=True))
        async with self._database.write() as connection:
            return (await connection.execute(delete(ledger).where(old))).rowcount

    async def made(self, workspace: str, source: str, *, since: datetime) -> set[str]:
        """Return the native ids that steps of a source (`<source>/…`, or an order's `<source>`) begun since have created."""
        query = select(ledger.c.step, ledger.c.outcome).where(
            ledger.c.workspace == workspace, ledger.c.begun_at >= since, ledger.c.state == "DONE"
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {
            str(row.outcome["native_id"])
            for row in rows
            if (row.step == source or row.step.startswith(f"{source}/")) and row.outcome and row.outcome.get("created")
        }

    # ---- leases: one at a time, over all processes ----

    async def lease(self, workspace: str, name: str, owner: str, *, now: datetime, until: datetime) -> bool:
        """Take or prolong a lease; False while another owner has it."""
        same = and_(leases.c.workspace == workspace, leases.c.name == name)
        try:
            async with self._database.write() as connection:
                free = update(leases).where(same, or_(leases.c.owner == owner, leases.c.until <= now))
                if (await connection.execute(free.values(owner=owner, until=until))).rowcount == 1:
                    return True
                if (await connection.execute(select(leases.c.owner).where(same))).first() is not None:
                    return False
                await connection.execute(insert(leases).values(workspace=workspace, name=name, owner=owner, until=until))
                return True
        except IntegrityError:  # another process entered it between our look and our insert
            return False

    async def release(self, workspace: str, name: str, owner: str) -> None:
        async with self._database.write() as connection:
            await connection.execute(
                delete(leases).where(leases.c.workspace == workspace, leases.c.name == name, leases.c.owner == owner)
            )

    async def release_all(self) -> None:
        """End every lease: for a process that knows itself to be the only one."""
        async with self._database.write() as connection:
            await connection.execute(delete(leases))


def _one(workspace: str, key: str, step: str) -> Any:
    return and_(ledger.c.workspace == workspace, ledger.c.key == key, ledger.c.step == step)


def _row(found: Any) -> LedgerRow:
    return LedgerRow(
        step=found["step"], digest=found["digest"], state=found["state"], outcome=found["outcome"], begun_at=found["begun_at"]
    )

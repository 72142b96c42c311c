"""What is stored survives, on SQLite and on PostgreSQL alike."""

import asyncio
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect

from model.errors import ConfigurationError
from store.callers import CallerRows
from store.credentials import CredentialRows
from store.database import Database
from store.ledger import LedgerRows
from store.sources import SourceRow, SourceRows
from store.tables import metadata

NOW = datetime(2026, 11, 1, tzinfo=UTC)
HUBSPOT = SourceRow(
    workspace="default",
    id="hubspot",
    system="hubspot",
    label="HubSpot",
    base_url="https://x.example",
    rank=1,
    config={"region": "DE"},
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await Database.open(database_url)
    yield opened
    await opened.close()


async def test_migrations_make_exactly_the_declared_tables(database: Database) -> None:
    async with database.read() as connection:
        made = await connection.run_sync(
            lambda sync: {
                table: {column["name"] for column in inspect(sync).get_columns(table)}
                for table in inspect(sync).get_table_names()
                if table != "alembic_version"
            }
        )

    assert made == {name: {column.name for column in table.columns} for name, table in metadata.tables.items()}


async def test_opening_again_changes_nothing(database: Database, database_url: str) -> None:
    await SourceRows(database).put(HUBSPOT)

    again = await Database.open(database_url)

    assert await SourceRows(again).all("default") == [HUBSPOT]
    await again.close()


async def test_many_processes_may_open_a_new_database_at_once(database_url: str) -> None:
    opened = await asyncio.gather(*(Database.open(database_url) for _ in range(4)))

    assert all([await SourceRows(each).all("default") == [] for each in opened])
    for each in opened:
        await each.close()


async def test_a_source_is_replaced_paused_and_forgotten_with_its_credentials(database: Database) -> None:
    rows, credentials = SourceRows(database), CredentialRows(database)
    await rows.put(HUBSPOT)
    await credentials.replace("default", "hubspot", b"sealed", version=1)

    paused = await rows.set_state("default", "hubspot", "PAUSED", "by hand")
    [known] = await rows.all("default")
    removed = await rows.remove("default", "hubspot")

    assert (paused, known.state, known.reason, removed) == (True, "PAUSED", "by hand", True)
    assert await rows.all("default") == []
    assert await credentials.load("default", "hubspot") is None
    assert not await rows.remove("default", "hubspot")


async def test_workspaces_do_not_see_each_other(database: Database) -> None:
    await SourceRows(database).put(HUBSPOT)
    await CredentialRows(database).replace("default", "hubspot", b"sealed", version=1)

    assert await SourceRows(database).all("other") == []
    assert await CredentialRows(database).load("other", "hubspot") is None
    assert not await SourceRows(database).remove("other", "hubspot")


async def test_of_many_writers_of_one_version_one_wins(database: Database) -> None:
    rows = CredentialRows(database)
    await rows.replace("default", "hubspot", b"first", version=1)

    won = await asyncio.gather(*(rows.replace("default", "hubspot", bytes([n]), version=2) for n in range(8)))
    kept = await rows.load("default", "hubspot")

    assert sum(won) == 1
    assert kept is not None
    assert (kept.version, kept.sealed) == (2, bytes([won.index(True)]))


async def test_an_api_key_is_found_until_it_is_revoked_and_never_stored(database: Database) -> None:
    rows = CallerRows(database)
    made, key = await rows.create("default", "web", ["read"], now=NOW)

    found = await rows.find(key)
    revoked = [await rows.revoke("default", made.id, now=NOW) for _ in range(2)]

    assert found == made
    assert revoked == [True, False]
    assert await rows.find(key) is None
    assert await rows.find(key[:-1]) is None
    assert key.split("_", 2)[2] not in repr(await rows.all("default"))


async def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    async def stopped() -> None:
        async with database.write() as connection:
            await connection.exec_driver_sql(
                "insert into sources (workspace, id, system, label, base_url, rank, config, state) values ('w', 'a', 'b', 'c', 'd', 1, '{}', 'CONNECTED')"
            )
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        await stopped()

    assert await SourceRows(database).all("w") == []


async def test_the_sqlite_file_is_for_its_owner_only(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'new' / 'c360.db'}")
    await database.close()

    assert stat.S_IMODE((tmp_path / "new" / "c360.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite://", "sqlite:///:memory:"])
async def test_another_database_is_refused_by_the_settings_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match="database_url"):
        await Database.open(url)


async def test_old_keys_are_forgotten_and_what_an_order_became_is_not(database: Database) -> None:
    rows = LedgerRows(database)
    for key in ("old", "order/order:shop:1", "begun"):
        await rows.begin("default", key, {"a": "digest"}, now=NOW)
    for key in ("old", "order/order:shop:1"):
        await rows.end("default", key, {"a": {"state": "APPLIED"}}, now=NOW)

    gone = await rows.clear(before=NOW + timedelta(seconds=1), keeping="order/")

    assert gone == 1
    assert [await rows.row("default", key, "a") is not None for key in ("old", "order/order:shop:1", "begun")] == [
        False,
        True,
        True,
    ]

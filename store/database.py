"""One door to the database: readers at any time, one transaction per writer."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from model.errors import ConfigurationError

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_MIGRATION_LOCK = 0x_C360


class Database:
    """SQLite (WAL, synchronous=FULL, one writer) or PostgreSQL. Open with `Database.open(url)`."""

    def __init__(self, reader: AsyncEngine, writer: AsyncEngine) -> None:
        self._reader, self._writer = reader, writer
        self._one_writer = asyncio.Lock() if reader.dialect.name == "sqlite" else None

    @classmethod
    async def open(cls, url: str) -> "Database":
        """Connect, and bring the tables up to date.

        Args:
            url: "sqlite:///path/to/file.db" or "postgresql://user:password@host/name".

        Raises:
            ConfigurationError: it is neither, or nothing answers there.
        """
        try:
            target = make_url(url)
            driver = _DRIVERS[target.get_backend_name()]
        except (ArgumentError, KeyError) as error:
            raise ConfigurationError("database_url must be sqlite:///… or postgresql://…") from error
        target = target.set(drivername=driver)
        database = cls(*_sqlite(target)) if driver.startswith("sqlite") else cls(*_postgresql(target))
        try:
            async with database.write() as connection:
                if database.is_postgresql:
                    await connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
                await connection.run_sync(_migrate)
        except OperationalError as error:
            await database.close()
            reason = str(error.orig).strip().splitlines()[0]
            raise ConfigurationError(f"database_url: the database cannot be opened: {reason}") from error
        return database

    @property
    def is_postgresql(self) -> bool:
        return self._writer.dialect.name == "postgresql"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction that sees one state of the data."""
        async with self._reader.begin() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection in a transaction that is durable when this ends, and undone when it raises."""
        if self._one_writer is None:
            async with self._writer.begin() as connection:
                yield connection
        else:
            async with self._one_writer, self._writer.begin() as connection:
                yield connection

    async def close(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()


def _postgresql(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    engine = create_async_engine(url, pool_size=5, max_overflow=10, pool_pre_ping=True)
    return engine, engine


def _sqlite(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    if not url.database or url.database == ":memory:":
        raise ConfigurationError("database_url must name a file: sqlite:///path/to/file.db")
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # identity data: nobody else may read it
    return _sqlite_engine(url, begin="BEGIN", size=4), _sqlite_engine(url, begin="BEGIN IMMEDIATE", size=1)


def _sqlite_engine(url: URL, *, begin: str, size: int) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=size, max_overflow=0 if size == 1 else 4)

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        cursor = connection.cursor()
        for pragma in ("busy_timeout=10000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def began(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", "store:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

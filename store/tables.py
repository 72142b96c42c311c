"""The tables. Every row belongs to a workspace; a change here needs a migration beside it."""

from datetime import UTC, datetime

from sqlalchemy import JSON, Column, DateTime, Dialect, Index, Integer, LargeBinary, MetaData, String, Table, TypeDecorator


class Instant(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets the zone of what it keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


metadata = MetaData()

workspaces = Table(
    "workspaces",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("created_at", Instant, nullable=False),
)

sources = Table(
    "sources",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("system", String(64), nullable=False),
    Column("label", String(200), nullable=False),
    Column("base_url", String(2000), nullable=False),
    Column("config", JSON, nullable=False),
    Column("state", String(32), nullable=False),
    Column("reason", String(500)),
    Column("rank", Integer, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

callers = Table(
    "callers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("workspace", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("revoked_at", Instant),
)

identity_records = Table(
    "identity_records",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("native_id", String(255), primary_key=True),
    Column("customer", String(64), nullable=False),
    Column("surname", String(255)),
    Column("created_at", Instant),
    Column("seen_at", Instant, nullable=False),
    Column("digest", String(64), nullable=False),
    Index("identity_records_by_customer", "workspace", "customer"),
)

identity_keys = Table(
    "identity_keys",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("native_id", String(255), primary_key=True),
    Column("type", String(16), primary_key=True),
    Column("value", String(320), primary_key=True),
    Index("identity_keys_by_value", "workspace", "type", "value"),
)

customers = Table(
    "customers",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("survivor", String(64), nullable=False),
    Column("source", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("native_id", String(255), nullable=False),
    Index("customers_by_survivor", "workspace", "survivor"),
    Index("customers_by_anchor", "workspace", "source", "kind", "native_id"),
)

ledger = Table(
    "ledger",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("step", String(255), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("outcome", JSON),
    Column("begun_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Index("ledger_by_begun", "workspace", "begun_at"),
)

leases = Table(
    "leases",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until", Instant, nullable=False),
)

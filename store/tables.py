"""The tables. Every row belongs to a workspace; a change here needs a migration beside it."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)  # fmt: skip


class Instant(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets the zone of what it keeps."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


metadata = MetaData()
_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by themselves only where they are INTEGER


def _record() -> list[Column[str]]:
    return [
        Column("source", String(64), nullable=False),
        Column("kind", String(32), nullable=False),
        Column("native_id", String(255), nullable=False),
    ]


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
    Column("account", String(255)),
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

hooks = Table(
    "hooks",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("app", String(64), primary_key=True),
    Column("system", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(500)),
    Column("watches", JSON, nullable=False),
    Column("checked_at", Instant),
    Column("expires_at", Instant),
    Column("heard_at", Instant),
)

inbox = Table(
    "inbox",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("workspace", String(64), nullable=False),
    Column("event", String(255), nullable=False),
    *_record(),
    Column("op", String(16), nullable=False),
    Column("into", String(255)),
    Column("origin", String(16), nullable=False),
    Column("at", Instant),
    Column("received_at", Instant, nullable=False),
    Column("state", String(16), nullable=False),
    Column("deliveries", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("owner", String(64)),
    Column("ended_at", Instant),
    UniqueConstraint("workspace", "source", "event", name="inbox_by_event"),
    Index("inbox_by_state", "state", "due_at"),
)

versions = Table(
    "versions",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("native_id", String(255), primary_key=True),
    Column("updated_at", Instant),
    Column("applied_at", Instant, nullable=False),
    Column("gone", Boolean, nullable=False),
    Column("marks", JSON, nullable=False),
    Column("seen_at", Instant),
)

sequences = Table(
    "sequences",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("value", _NUMBER, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),
    Column("op", String(16), nullable=False),
    *_record(),
    Column("system", String(64), nullable=False),
    Column("customer", String(64)),
    Column("changed", JSON),
    Column("into", String(255)),
    Column("origin", String(16), nullable=False),
    Column("at", Instant, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("applied_at", Instant, nullable=False),
    Index("events_by_record", "workspace", "source", "kind", "native_id"),
    Index("events_by_time", "applied_at"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("cursor", Text),
    Column("pace", Float, nullable=False),
    Column("began_at", Instant),
    Column("passed_at", Instant),
    Column("failure", String(500)),
    Column("backfill", JSON),
    Column("reconciled_at", Instant),
    Column("drift", Integer),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("url", String(2000), nullable=False),
    Column("events", JSON, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("policy", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(500)),
    Column("position", _NUMBER, nullable=False),
    Column("missed", _NUMBER, nullable=False),
    Column("created_at", Instant, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("endpoint", String(64), primary_key=True),
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("spent", Integer, nullable=False),
    Column("body", Text),
    Column("due_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Index("deliveries_by_state", "workspace", "endpoint", "state", "due_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("endpoint", String(64), primary_key=True),
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("status", Integer),
    Column("code", String(32)),
    Column("backoff", Float),
    Index("attempts_by_time", "workspace", "endpoint", "at"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("workspace", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("source", String(64), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("kind", String(32)),
    Column("native_id", String(255)),
    Column("inbox", _NUMBER),
    Column("code", String(32), nullable=False),
    Column("message", String(500), nullable=False),
    Column("sealed", LargeBinary),
    Column("attempts", Integer, nullable=False),
    Column("first_at", Instant, nullable=False),
    Column("last_at", Instant, nullable=False),
    Index("dead_letters_by_record", "workspace", "source", "kind", "native_id"),
)

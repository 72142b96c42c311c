"""What is live: webhooks accepted, changes applied, the log of events, places in feeds, endpoints and what they were sent."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _instant(name: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _record() -> list[sa.Column[str]]:
    return [
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("native_id", sa.String(255), nullable=False),
    ]


def upgrade() -> None:
    op.add_column("sources", sa.Column("account", sa.String(255)))
    op.create_table(
        "hooks",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("app", sa.String(64), primary_key=True),
        sa.Column("system", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(500)),
        sa.Column("watches", sa.JSON, nullable=False),
        _instant("checked_at", nullable=True),
        _instant("expires_at", nullable=True),
        _instant("heard_at", nullable=True),
    )
    op.create_table(
        "inbox",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("event", sa.String(255), nullable=False),
        *_record(),
        sa.Column("op", sa.String(16), nullable=False),
        sa.Column("into", sa.String(255)),
        sa.Column("origin", sa.String(16), nullable=False),
        _instant("at", nullable=True),
        _instant("received_at"),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("deliveries", sa.Integer, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        _instant("due_at"),
        sa.Column("owner", sa.String(64)),
        _instant("ended_at", nullable=True),
        sa.UniqueConstraint("workspace", "source", "event", name="inbox_by_event"),
    )
    op.create_index("inbox_by_state", "inbox", ["state", "due_at"])
    op.create_table(
        "versions",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("native_id", sa.String(255), primary_key=True),
        _instant("updated_at", nullable=True),
        _instant("applied_at"),
        sa.Column("gone", sa.Boolean, nullable=False),
        sa.Column("marks", sa.JSON, nullable=False),
        _instant("seen_at", nullable=True),
    )
    op.create_table(
        "sequences",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("value", _NUMBER, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("op", sa.String(16), nullable=False),
        *_record(),
        sa.Column("system", sa.String(64), nullable=False),
        sa.Column("customer", sa.String(64)),
        sa.Column("changed", sa.JSON),
        sa.Column("into", sa.String(255)),
        sa.Column("origin", sa.String(16), nullable=False),
        _instant("at"),
        _instant("received_at"),
        _instant("applied_at"),
    )
    op.create_index("events_by_record", "events", ["workspace", "source", "kind", "native_id"])
    op.create_index("events_by_time", "events", ["applied_at"])
    op.create_table(
        "cursors",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("cursor", sa.Text),
        sa.Column("pace", sa.Float, nullable=False),
        _instant("began_at", nullable=True),
        _instant("passed_at", nullable=True),
        sa.Column("failure", sa.String(500)),
        sa.Column("backfill", sa.JSON),
        _instant("reconciled_at", nullable=True),
        sa.Column("drift", sa.Integer),
    )
    op.create_table(
        "endpoints",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("events", sa.JSON, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(500)),
        sa.Column("position", _NUMBER, nullable=False),
        sa.Column("missed", _NUMBER, nullable=False),
        _instant("created_at"),
    )
    op.create_table(
        "deliveries",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("endpoint", sa.String(64), primary_key=True),
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("spent", sa.Integer, nullable=False),
        sa.Column("body", sa.Text),
        _instant("due_at"),
        _instant("ended_at", nullable=True),
    )
    op.create_index("deliveries_by_state", "deliveries", ["workspace", "endpoint", "state", "due_at"])
    op.create_table(
        "attempts",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("endpoint", sa.String(64), primary_key=True),
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("number", sa.Integer, primary_key=True),
        _instant("at"),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("code", sa.String(32)),
        sa.Column("backoff", sa.Float),
    )
    op.create_index("attempts_by_time", "attempts", ["workspace", "endpoint", "at"])
    op.create_table(
        "dead_letters",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32)),
        sa.Column("native_id", sa.String(255)),
        sa.Column("inbox", _NUMBER),
        sa.Column("code", sa.String(32), nullable=False),
        sa.Column("message", sa.String(500), nullable=False),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("attempts", sa.Integer, nullable=False),
        _instant("first_at"),
        _instant("last_at"),
    )
    op.create_index("dead_letters_by_record", "dead_letters", ["workspace", "source", "kind", "native_id"])

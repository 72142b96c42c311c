"""Workspaces, sources, credentials, callers, and the identity index."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "callers",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("workspace", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "credentials",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "customers",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("survivor", sa.String(64), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("native_id", sa.String(255), nullable=False),
    )
    op.create_index("customers_by_anchor", "customers", ["workspace", "source", "kind", "native_id"])
    op.create_index("customers_by_survivor", "customers", ["workspace", "survivor"])
    op.create_table(
        "identity_keys",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("native_id", sa.String(255), primary_key=True),
        sa.Column("type", sa.String(16), primary_key=True),
        sa.Column("value", sa.String(320), primary_key=True),
    )
    op.create_index("identity_keys_by_value", "identity_keys", ["workspace", "type", "value"])
    op.create_table(
        "identity_records",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("native_id", sa.String(255), primary_key=True),
        sa.Column("customer", sa.String(64), nullable=False),
        sa.Column("surname", sa.String(255)),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_index("identity_records_by_customer", "identity_records", ["workspace", "customer"])
    op.create_table(
        "sources",
        sa.Column("workspace", sa.String(64), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("system", sa.String(64), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("base_url", sa.String(2000), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(500)),
        sa.Column("rank", sa.Integer(), nullable=False),
    )
    workspaces = op.create_table(
        "workspaces",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.bulk_insert(workspaces, [{"id": "default", "created_at": datetime.now(UTC)}])

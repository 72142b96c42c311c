"""Follows a feed as the core does: passes of one or several pages, each from the cursor of the one before."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from adapters.base import Adapter, Api
from adapters.changes import Change
from model.records import Kind


@dataclass(slots=True)
class Follower:
    """
    Attributes:
        fields: native paths wanted.
        cursor: None before the first pass.
        pages: how many answers the last pass had.
    """

    kind: Kind
    fields: Sequence[str]
    cursor: str | None = None
    pages: int = 0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def passed(self, adapter: Adapter, api: Api) -> list[Change]:
        """Make one pass, and return all that it told."""
        told: list[Change] = []
        self.pages = 0
        while True:
            said = await adapter.changes(api, self.kind, self.cursor, self.fields, now=self.now)
            told += said.changes
            self.cursor, self.pages = said.cursor, self.pages + 1
            if not said.more:
                return told


def ids(changes: Sequence[Change]) -> set[str]:
    return {each.native_id for each in changes}

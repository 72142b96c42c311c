"""Flows that an administrator makes: after a record was made or edited, they call someone by HTTP.

From the pages on record-triggered flows and HTTP callouts: the asynchronous path runs after the transaction is committed, soon, once for
each record; a delete has no such path, and a callout that fails is not repeated. The body is what the administrator put together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from sandbox.table import Row
from sandbox.webhooks import Outbox, Sending

TRIGGERS = ("Contact", "Lead", "Account", "Opportunity")
_TIMEOUT = 120.0  # seconds a callout may take


@dataclass(frozen=True, slots=True)
class _Flow:
    url: str
    secret: str


@dataclass(slots=True)
class Flows:
    """
    Attributes:
        outbox: None until someone listens to the org.
    """

    outbox: Outbox | None = None
    _flows: list[_Flow] = field(default_factory=list)

    def add(self, url: str, secret: str) -> None:
        self._flows.append(_Flow(url, secret))

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {"id": f"{name}-{at}", "url": flow.url, "active": True, "object": name}
            for at, flow in enumerate(self._flows)
            for name in TRIGGERS
        ]

    def saved(self, name: str, row: Row) -> None:
        """Run the flows of an object for a record that was made or edited: an edit that changes nothing triggers them, too."""
        if name not in TRIGGERS or row["IsDeleted"] or self.outbox is None:
            return
        for at, flow in enumerate(self._flows):
            said = {"object": name, "id": row["Id"], "changedAt": row["SystemModstamp"], "run": str(uuid4())}
            body = orjson.dumps(said)
            headers = {"Content-Type": "application/json", "X-Webhook-Secret": flow.secret}
            self.outbox.post(
                Sending(
                    hook=f"{name}-{at}", url=flow.url, key=said["run"], timeout=_TIMEOUT,
                    make=lambda _, made=(headers, body): made,  # type: ignore[misc]
                )
            )  # fmt: skip

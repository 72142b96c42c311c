"""Automation rules that an administrator makes: when a ticket was made or a property of it edited, they call someone by HTTP.

From help articles: a call that fails is repeated after 5, 30 and 60 minutes; calls beyond the limit of an hour are put off to the next. The limit of
1,000 is general knowledge. Rules know tickets only; the body is what the administrator put together.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from sandbox.clock import SandboxClock
from sandbox.table import Row
from sandbox.webhooks import Outbox, Sending

_WAITS = (300.0, 1800.0, 3600.0)  # seconds
_HOURLY, _HOUR, _DAY = 1000, 3600.0, 86_400.0


@dataclass(slots=True)
class Rules:
    """
    Attributes:
        outbox: None until someone listens to the account.
    """

    clock: SandboxClock
    outbox: Outbox | None = None
    _rules: list[tuple[str, str]] = field(default_factory=list)
    _sent: dict[int, int] = field(default_factory=dict)  # hour → calls that are due in it

    def add(self, url: str, secret: str) -> None:
        self._rules.append((url, secret))

    def listed(self) -> list[Mapping[str, Any]]:
        return [{"id": f"rule-{at}", "url": url, "active": True, "object": "tickets"} for at, (url, _) in enumerate(self._rules)]

    def saved(self, id: str, before: Row | None, after: Row) -> None:
        """Run the rules for a ticket that was made, brought back, or has another property than before."""
        changed = [name for name in after if before is None or after[name] != before.get(name)]
        if self.outbox is None or not set(changed) - {"updated_at"}:
            return
        for at, (url, secret) in enumerate(self._rules):
            wait = self._put_off()
            if wait > _DAY:
                continue  # dropped, and the administrator gets a mail
            headers = {"Content-Type": "application/json", "X-Webhook-Secret": secret}
            body = orjson.dumps({"ticket_id": id})
            self.outbox.post(
                Sending(
                    hook=f"rule-{at}", url=url, key=f"{id}-{after['updated_at']}", waits=_WAITS,
                    make=lambda _, made=(headers, body): made,  # type: ignore[misc]
                ),
                after=wait,
            )  # fmt: skip

    def _put_off(self) -> float:
        """Return the seconds until a call may be made."""
        now = self.clock.time()
        first = math.floor(now / _HOUR)
        hour = first
        while self._sent.get(hour, 0) >= _HOURLY:
            hour += 1
        self._sent[hour] = self._sent.get(hour, 0) + 1
        return 0.0 if hour == first else hour * _HOUR - now

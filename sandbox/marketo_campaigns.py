"""Campaigns of Marketo's sandbox that call webhooks: "Person is Created" and "Data Value Changes" trigger the step "Call Webhook".

Written from Adobe's pages on webhooks: an administrator writes address, template and headers; Marketo waits 30 seconds and signs nothing.
Decided here, since no document says: a call that fails is not made again. Nothing is called for a lead that is deleted or merged away:
there is none any more whom a campaign could be about.
"""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import orjson

from sandbox.table import Row
from sandbox.webhooks import Sending

HEADER = "X-Customer360-Secret"
_TIMEOUT = 30.0
_UNTOLD = frozenset({"updatedAt"})


class Campaigns:
    def __init__(self, post: Callable[[Sending], None]) -> None:
        self._post = post
        self._hooks: dict[int, tuple[str, Mapping[str, str]]] = {}
        self._numbers, self._runs = count(1001), count(1)

    def add(self, url: str, secret: str) -> None:
        """Write a webhook with the template {"id": "{{lead.Id}}"} and the secret in a header of its own."""
        self._hooks[next(self._numbers)] = (url, {HEADER: secret, "content-type": "application/json"})

    def listed(self) -> list[Mapping[str, Any]]:
        return [{"id": str(id), "url": url, "active": True} for id, (url, _) in self._hooks.items()]

    def changed(self, native_id: str, before: Row | None, after: Row | None) -> None:
        """Run for a lead that was made, or a value of which changed."""
        if after is None or (before is not None and _values(before) == _values(after)):
            return
        body = orjson.dumps({"id": native_id})
        for id, (url, headers) in self._hooks.items():
            made = (headers, body)
            key = f"{native_id}.{next(self._runs)}"
            self._post(Sending(hook=str(id), url=url, key=key, make=lambda _, made=made: made, timeout=_TIMEOUT))  # type: ignore[misc]


def _values(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in _UNTOLD}

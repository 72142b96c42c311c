"""HubSpot's webhooks: an app's subscriptions, and what it is sent for each thing that happens in the portal.

From the webhooks guide and the official client's signatures. Each event names one property or one record and brings no record;
those that happen together are sent together, at most 100. What is not answered with a 2xx within 5 s is sent again up to 10 times
within 24 hours; the guide calls the pauses random, here they are fixed. A subscription is for all objects of its name.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import orjson

from sandbox.clock import SandboxClock
from sandbox.hubspot_properties import PORTAL, PROPERTIES, modified
from sandbox.table import Row
from sandbox.webhooks import Made, Outbox, Sending

APP = 54321
_NOUNS = {"contacts": "contact", "companies": "company", "deals": "deal", "tickets": "ticket"}
_VERBS = ("creation", "deletion", "merge", "restore", "associationChange")
_WAITS = (15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0, 28_800.0)
_ESCAPES = re.compile("%(?:3A|2F|3F|40|21|24|27|28|29|2A|2C|3B)", re.IGNORECASE)


@dataclass(slots=True)
class _Hook:
    url: str
    secret: str
    subscriptions: Mapping[str, int]  # "contact.creation", "contact.propertyChange email" → id


@dataclass(slots=True)
class Hooks:
    """
    Attributes:
        outbox: None until someone listens to the portal.
        skew: seconds the vendor's clock is off.
    """

    clock: SandboxClock
    outbox: Outbox | None = None
    skew: Callable[[], float] = lambda: 0.0
    _hooks: list[_Hook] = field(default_factory=list)
    _ids: Any = field(default_factory=lambda: count(100))

    def add(self, url: str, secret: str, only: Sequence[str] | None) -> None:
        names = [
            *(f"{noun}.{verb}" for noun in _NOUNS.values() for verb in _VERBS), "contact.privacyDeletion",
            *(f"{noun}.propertyChange {name}" for kind, noun in _NOUNS.items() for name in PROPERTIES[kind] if name != modified(kind)),
        ]  # fmt: skip
        wanted = {name: 111_111 + at for at, name in enumerate(names) if only is None or name in only}
        self._hooks.append(_Hook(url, secret, wanted))

    def listed(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for hook in self._hooks:
            for name, id in hook.subscriptions.items():
                event, _, of = name.partition(" ")
                found.append({"id": str(id), "url": hook.url, "active": True, "eventType": event, "propertyName": of or None})
        return found

    # ---- what happens ----

    def changed(self, kind: str, id: str, before: Row | None, after: Row) -> None:
        """Tell of a record that was made, edited, archived or brought back."""
        if before is None:
            self._tell(f"{_NOUNS[kind]}.creation", id)
        elif before["archived"] != after["archived"]:
            self._tell(f"{_NOUNS[kind]}.{'deletion' if after['archived'] else 'restore'}", id)
        else:
            for name in {**before["properties"], **after["properties"]}:
                new = after["properties"].get(name)
                if before["properties"].get(name) != new:
                    facts: Row = {"propertyName": name, "propertyValue": new or ""}
                    self._tell(f"{_NOUNS[kind]}.propertyChange", id, facts)

    def merged(self, kind: str, winner: str, losers: Sequence[str], moved: int) -> None:
        facts = {
            "primaryObjectId": int(winner), "mergedObjectIds": [int(each) for each in losers], "newObjectId": int(winner),
            "numberOfPropertiesMoved": moved,
        }  # fmt: skip
        self._tell(f"{_NOUNS[kind]}.merge", winner, facts)

    def forgotten(self, id: str) -> None:
        self._tell("contact.privacyDeletion", id)

    def tied(self, start: str, to: str, id: str, other: str, *, removed: bool, primary: bool) -> None:
        """Tell of an association, from both of its ends."""
        for one, two, mine, theirs in ((start, to, id, other), (to, start, other, id)):
            if one in _NOUNS and two in _NOUNS:
                facts = {
                    "associationType": f"{_NOUNS[one]}_TO_{_NOUNS[two]}".upper(), "fromObjectId": int(mine), "toObjectId": int(theirs),
                    "associationRemoved": removed, "isPrimaryAssociation": primary,
                }  # fmt: skip
                self._tell(f"{_NOUNS[one]}.associationChange", None, facts)

    def _tell(self, event: str, id: str | None, facts: Mapping[str, Any] = MappingProxyType({})) -> None:
        name = f"{event} {facts['propertyName']}" if "propertyName" in facts else event
        for hook in self._hooks:
            subscription = hook.subscriptions.get(name)
            if subscription is None or self.outbox is None:
                continue
            told = {
                "eventId": next(self._ids), "subscriptionId": subscription, "portalId": PORTAL, "appId": APP,
                "occurredAt": int(self.clock.time() * 1000), "subscriptionType": event, "attemptNumber": 0,
                **({"objectId": int(id)} if id is not None else {}), **facts, "changeSource": "CRM_UI", "sourceId": "userId:123",
            }  # fmt: skip
            self.outbox.gather(hook.url, told, partial(self._sending, hook))

    def _sending(self, hook: _Hook, events: list[Row]) -> Sending:
        return Sending(
            hook=str(APP), url=hook.url, key=str(events[0]["eventId"]), make=partial(self._made, hook, events), waits=_WAITS, timeout=5.0
        )  # fmt: skip

    def _made(self, hook: _Hook, events: list[Row], attempt: int) -> Made:
        body = orjson.dumps([{**each, "attemptNumber": attempt} for each in events])
        # The receiver's clock does not move with the sandbox's, and compares this with its own.
        stamp = str(int((time.time() + self.skew()) * 1000))
        url = _ESCAPES.sub(lambda found: unquote(found[0]), hook.url)
        signed = hmac.new(hook.secret.encode(), f"POST{url}".encode() + body + stamp.encode(), hashlib.sha256).digest()
        headers = {
            "Content-Type": "application/json", "X-HubSpot-Signature-Version": "v1",
            "X-HubSpot-Signature": hashlib.sha256(hook.secret.encode() + body).hexdigest(),
            "X-HubSpot-Signature-v3": base64.b64encode(signed).decode(), "X-HubSpot-Request-Timestamp": stamp,
        }  # fmt: skip
        return headers, body

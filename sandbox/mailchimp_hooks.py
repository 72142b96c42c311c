"""Webhooks of Mailchimp's sandbox: made for an audience, looked at by a GET, signed, and sent as forms.

Written from the vendor's guides as third parties quote them. Decided here, since no document says: a second webhook to one address is
refused; retries come after 1, 5, 10, 20 and 39 minutes, 75 in all; a webhook whose deliveries were given up three times in a row is
switched off, and is not listed any more; a change of an address is told as `upemail` and as `profile`; who is added without being
subscribed is not told, nor are VIPs, tags and places. `fired_at` is UTC.
"""

import hashlib
import hmac
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import SandboxClock
from sandbox.dialect import json_response
from sandbox.mailchimp_answers import FIELDS, known, projected, said_in
from sandbox.mailchimp_audience import Refused, invalid
from sandbox.table import Row
from sandbox.webhooks import Made, Sending

EVENTS = ("subscribe", "unsubscribe", "profile", "cleaned", "upemail", "campaign")
SOURCES = ("user", "admin", "api")
_WAITS = (60, 300, 600, 1200, 2340)
_PATIENCE = 3
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_TOLD = ("merge_fields", "email_type", "interests", "language", "email_address")  # of which a change is one of the profile
# Who is making the change that is told: the API while it is called, else the account's own staff.
source: ContextVar[str] = ContextVar("source", default="admin")


class Hooks:
    """
    Attributes:
        signing: webhooks that are made get a signing secret, as they do since mid-2026.
    """

    def __init__(self, clock: SandboxClock, post: Callable[[Sending], None], audiences: Collection[str]) -> None:
        self._clock, self._post, self._audiences = clock, post, audiences
        self.signing = True
        self._hooks: dict[str, Row] = {}
        self._secrets: dict[str, str] = {}
        self._failed: dict[str, int] = {}  # deliveries given up in a row

    # ---- what the API does ----

    def calls(self) -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
        """Return (method, path below an audience, handler)."""
        return [
            ("GET", "/webhooks", self._list), ("POST", "/webhooks", self._make), ("GET", "/webhooks/{hook}", self._one),
            ("PATCH", "/webhooks/{hook}", self._edit), ("DELETE", "/webhooks/{hook}", self._end),
        ]  # fmt: skip

    async def _list(self, request: Request) -> Response:
        known(request, FIELDS)
        rows = self._of(self._audience(request))
        return projected(request, {"webhooks": rows, "list_id": request.path_params["list"], "total_items": len(rows)})

    async def _make(self, request: Request) -> Response:
        """Make a webhook once its address answers a GET with 200; tell its secret this once."""
        audience, said = self._audience(request), await said_in(request)
        url = str(said.get("url"))
        address = urlsplit(url)
        if not (address.scheme == "https" or (address.scheme == "http" and address.hostname in _LOCAL)):
            raise invalid("url", "Please enter a valid URL.")
        if any(hook["url"] == url for hook in self._of(audience)):
            raise invalid("url", "Sorry, you can't set up multiple WebHooks for one URL")
        if not await _answers(url):
            raise invalid("url", "We couldn't validate the URL: it must answer a GET request with 200.")
        id = secrets.token_hex(5)
        hook: Row = {
            "id": id, "url": url, "list_id": audience, "signing_enabled": self.signing, "events": _flags(EVENTS, said.get("events"), {}),
            "sources": _flags(SOURCES, said.get("sources"), {}),
        }  # fmt: skip
        self._hooks[id] = hook
        if not self.signing:
            return json_response(hook)
        self._secrets[id] = secrets.token_hex(16)
        return json_response({**hook, "signing_secret": self._secrets[id]})

    async def _one(self, request: Request) -> Response:
        return projected(request, self._named(request))

    async def _edit(self, request: Request) -> Response:
        hook, said = self._named(request), await said_in(request)
        hook["events"] = _flags(EVENTS, said.get("events"), hook["events"])
        hook["sources"] = _flags(SOURCES, said.get("sources"), hook["sources"])
        return json_response(hook)

    async def _end(self, request: Request) -> Response:
        self._hooks.pop(self._named(request)["id"])
        return Response(status_code=204)

    def _audience(self, request: Request) -> str:
        audience: str = request.path_params["list"]
        if audience not in self._audiences:
            raise Refused(404, "Resource Not Found", "The requested resource could not be found.")
        return audience

    def _named(self, request: Request) -> Row:
        hook = self._hooks.get(request.path_params["hook"])
        if hook is None or hook["list_id"] != request.path_params["list"]:
            raise Refused(404, "Resource Not Found", "The requested resource could not be found.")
        return hook

    def _of(self, audience: str) -> list[Row]:
        return [hook for hook in self._hooks.values() if hook["list_id"] == audience]

    def listed(self) -> list[Mapping[str, Any]]:
        return [{"id": hook["id"], "url": hook["url"], "active": True, "list": hook["list_id"]} for hook in self._hooks.values()]

    # ---- deliveries ----

    def changed(self, before: Row | None, after: Row | None) -> None:
        """Tell of a member; one edit may be several events."""
        was = before["status"] if before is not None else "archived"
        row = after or before
        assert row is not None
        now = after["status"] if after is not None else "archived"
        if now != was:
            match now:
                case "subscribed":
                    self._tell("subscribe", row, _person(row))
                case "archived":
                    self._tell("unsubscribe", row, {"action": "delete", "reason": "manual", **_person(row)})
                case "unsubscribed" if before is not None:
                    self._tell("unsubscribe", row, {"action": "unsub", "reason": "manual", **_person(row)})
                case "cleaned" if before is not None:
                    self._tell("cleaned", row, {"list_id": row["list_id"], "campaign_id": "", "reason": "hard", "email": row["email_address"]})  # fmt: skip
        if before is None or after is None or "archived" in {was, now}:
            return
        if before["email_address"] != after["email_address"]:
            said = {"list_id": row["list_id"], "new_id": row["unique_email_id"], "new_email": after["email_address"], "old_email": before["email_address"]}  # fmt: skip
            self._tell("upemail", row, said)
        if any(before[name] != after[name] for name in _TOLD):
            self._tell("profile", row, _person(row))

    def _tell(self, event: str, row: Row, data: Mapping[str, Any]) -> None:
        now = datetime.fromtimestamp(self._clock.time(), tz=UTC)
        fields = {
            "type": event,
            "fired_at": f"{now:%Y-%m-%d %H:%M:%S}",
            **{f"data{_path(name)}": value for name, value in data.items()},
        }
        body = urlencode(fields).encode()
        for hook in self._of(row["list_id"]):
            if hook["events"][event] and hook["sources"][source.get()]:
                sending = Sending(
                    hook=hook["id"], url=hook["url"], key=f"{event}:{row['id']}:{now.isoformat()}", make=partial(self._made, hook["id"], body),
                    waits=_WAITS, timeout=10.0, failed=partial(self._gave_up, hook["id"]), answered=partial(self._heard, hook["id"]),
                )  # fmt: skip
                self._post(sending)

    def _made(self, id: str, body: bytes, _: int) -> Made:
        headers = {"content-type": "application/x-www-form-urlencoded", "user-agent": "MailChimp"}
        if secret := self._secrets.get(id):
            sent = str(int(self._clock.time()))
            headers["x-mailchimp-signature"] = (
                f"t={sent},v1={hmac.digest(secret.encode(), f'{sent}.'.encode() + body, hashlib.sha256).hex()}"
            )
        return headers, body

    def _heard(self, id: str, status: int | None) -> None:
        if status is not None and 200 <= status < 300:
            self._failed.pop(id, None)

    def _gave_up(self, id: str) -> None:
        self._failed[id] = self._failed.get(id, 0) + 1
        if self._failed[id] >= _PATIENCE:
            self._hooks.pop(id, None)


def _person(row: Row) -> dict[str, Any]:
    merges = {tag: value for tag, value in row["merge_fields"].items() if not isinstance(value, dict)}
    return {
        "id": row["unique_email_id"], "email": row["email_address"], "email_type": row["email_type"], "ip_opt": row["ip_opt"], "web_id": row["web_id"],
        "merges.EMAIL": row["email_address"], **{f"merges.{tag}": value for tag, value in merges.items()}, "list_id": row["list_id"],
    }  # fmt: skip


def _path(name: str) -> str:
    return "".join(f"[{step}]" for step in name.split("."))


def _flags(names: tuple[str, ...], said: Any, before: Mapping[str, bool]) -> dict[str, bool]:
    said = said if isinstance(said, Mapping) else {}
    return {name: said[name] is True if name in said else before.get(name, False) for name in names}


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(timeout=10.0, verify=False) as http:  # noqa: S501 - a sandbox
            return (await http.get(url)).status_code == 200
    except httpx.HTTPError:
        return False

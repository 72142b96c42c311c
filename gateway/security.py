"""What stands in front of every route: request ids, Host and Origin, security headers."""

import re
import secrets
from collections.abc import Sequence
from urllib.parse import urlsplit

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import refusal
from telemetry.logging import request_id

_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


class RequestId:
    """Take the caller's X-Request-Id where it is well-formed, else make one; send it back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a socket's operations have ids of their own
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        id = given if _ID.fullmatch(given) else secrets.token_hex(8)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = id
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("referrer-policy", "no-referrer")
                headers.setdefault("cache-control", "no-store")
            await send(message)

        token = request_id.set(id)
        try:
            await self._app(scope, receive, sending)
        finally:
            request_id.reset(token)


class KnownHosts:
    """Refuse a Host or an Origin we do not know: a web page must not reach a server on loopback by rebinding a name.

    Args:
        hosts: names without port; "*" allows any Host.
        origins: further origins whose pages may call (CORS).
    """

    def __init__(self, app: ASGIApp, *, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._app, self._hosts, self._origins = app, frozenset(hosts), frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        why = self._refused(Headers(scope=scope)) if scope["type"] in {"http", "websocket"} else None
        if why is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4403, "reason": "Forbidden"})  # before it is accepted: HTTP 403
            return
        if why is not None:
            body = orjson.dumps(refusal("FORBIDDEN", why))
            await Response(body, status_code=403, media_type="application/json")(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refused(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if "*" not in self._hosts and _name(f"//{host}") not in self._hosts:
            return "this Host is not served here; set C360_ALLOWED_HOSTS to the names it is reached by"
        origin = headers.get("origin")
        if origin is None or origin in self._origins or (host and origin.partition("://")[2] == host):
            return None
        return "this Origin may not call; set C360_CORS_ORIGINS to allow it"


def _name(url: str) -> str:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return ""
    return f"[{name}]" if ":" in name else name

"""What every system's sandbox shares: endpoints that are counted, guarded and broken on request, tokens, budgets.

A dialect states its endpoints and writes its own bodies. Around each call, in this order: the call is counted under its
path template; an injected fault may answer instead; the dialect's own `admit` checks credentials and budget; then the
handler runs; `finish` adds the vendor's headers.
"""

import asyncio
import math
import secrets
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from sandbox.clock import SandboxClock
from sandbox.faults import Fault, Faults, cut_off
from sandbox.table import Row, Table
from sandbox.webhooks import Outbox
from sandbox.world import Person, World

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path template of the vendor.

    Attributes:
        open: needs no credentials (token endpoints, version lists).
        cost: for dialects whose calls differ in price.
    """

    method: str
    path: str
    handler: Handler
    open: bool = False
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def template(self) -> str:
        return f"{self.method} {self.path}"


class Bucket:
    """Tokens that come back evenly, on the sandbox's clock."""

    def __init__(self, clock: SandboxClock, *, limit: float, per_second: float) -> None:
        self.limit, self.per_second = limit, per_second
        self._clock = clock
        self._level, self._at = limit, clock.time()

    @property
    def level(self) -> float:
        now = self._clock.time()
        self._level = min(self.limit, self._level + (now - self._at) * self.per_second)
        self._at = now
        return self._level

    def take(self, cost: float) -> bool:
        """Take `cost`, or nothing when there is not enough."""
        if self.level < cost:
            return False
        self._level -= cost
        return True

    def give(self, amount: float) -> None:
        self._level = min(self.limit, self.level + amount)

    def wait(self, cost: float) -> float:
        """Return the seconds until `cost` is there."""
        return max(0.0, (cost - self.level) / self.per_second)


class RollingWindow:
    """At most `limit` calls in any `period` seconds, on the sandbox's clock."""

    def __init__(self, clock: SandboxClock, *, limit: int, period: float) -> None:
        self.limit, self.period = limit, period
        self._clock = clock
        self._calls: deque[float] = deque()

    @property
    def remaining(self) -> int:
        edge = self._clock.time() - self.period
        while self._calls and self._calls[0] <= edge:
            self._calls.popleft()
        return self.limit - len(self._calls)

    def take(self) -> bool:
        if self.remaining <= 0:
            return False
        self._calls.append(self._clock.time())
        return True

    def wait(self) -> float:
        """Return the seconds until the next call is allowed, 0 when it is now."""
        return 0.0 if self.remaining > 0 else max(0.0, self._calls[0] + self.period - self._clock.time())


@dataclass(slots=True)
class Issued:
    """A token this sandbox gave out; `expires` in seconds since 1970."""

    client: str
    expires: float
    scope: str = ""
    session: str = ""


class Tokens:
    """Access and refresh tokens of one system.

    Args:
        rotate: a refresh gives a new refresh token and the old one dies.
        grace: the old refresh token stays good until its replacement is used first (Shopify since 2026-08-28).
    """

    def __init__(self, clock: SandboxClock, *, lifetime: float, rotate: bool, grace: bool = False) -> None:
        self.lifetime, self.rotate, self.grace = lifetime, rotate, grace
        self._clock = clock
        self._access: dict[str, Issued] = {}
        self._refresh: dict[str, str] = {}  # token → session
        self._previous: dict[str, str] = {}  # new token → the one it replaced, while that one still lives

    def issue(
        self, client: str, *, prefix: str = "", session: str | None = None, scope: str = "", lifetime: float | None = None
    ) -> str:
        """Return a new access token; `lifetime` in seconds where this one's differs from the others'."""
        token = prefix + secrets.token_urlsafe(24)
        expires = self._clock.time() + (self.lifetime if lifetime is None else lifetime)
        self._access[token] = Issued(client, expires, scope, session or secrets.token_hex(8))
        return token

    def grant(self, refresh_token: str) -> None:
        """Let a refresh token be known from the start."""
        self._refresh[refresh_token] = secrets.token_hex(8)

    def knows(self, refresh_token: str) -> bool:
        return refresh_token in self._refresh

    def refresh(self, refresh_token: str, *, prefix: str = "") -> str | None:
        """Use a refresh token; return the one to use next (the same where nothing rotates), None when it is unknown."""
        session = self._refresh.get(refresh_token)
        if session is None:
            return None
        replaced = self._previous.pop(refresh_token, None)
        if replaced is not None:
            self._refresh.pop(replaced, None)
        if not self.rotate:
            return refresh_token
        following = prefix + secrets.token_urlsafe(24)
        self._refresh[following] = session
        if self.grace:
            self._previous[following] = refresh_token
        else:
            del self._refresh[refresh_token]
        return following

    def valid(self, access_token: str) -> Issued | None:
        """Return what was issued, None when it is unknown, revoked or expired."""
        issued = self._access.get(access_token)
        return issued if issued is not None and issued.expires > self._clock.time() else None

    def revoke_access(self) -> None:
        """Make every access token useless at once; refresh tokens live on."""
        self._access.clear()

    def revoke_all(self) -> None:
        self._access.clear()
        self._refresh.clear()
        self._previous.clear()


class Dialect(ABC):
    """One system's sandbox. Subclasses state `name`, build `tables` by kind, and answer in their vendor's words."""

    name: ClassVar[str]
    objects: ClassVar[Mapping[str, str]]  # unified kind → native object name, for /_control
    cuts: ClassVar[bool] = False  # too many calls find the line cut, and are not answered
    gone: ClassVar[str] = ""  # the field that is true of rows that are deleted and still known
    base_path: ClassVar[str] = ""  # what a source's base address has behind the host

    def __init__(self, world: World, clock: SandboxClock, *, base_url: str = "") -> None:
        self.world, self.clock = world, clock
        self.base_url = base_url  # where this dialect is reached, for links in bodies; "" makes them from the request
        self.calls: Counter[str] = Counter()
        self.tables: dict[str, Table[Any]] = {}
        self.tokens: Tokens | None = None
        self.outbox: Outbox
        self.skew = 0.0  # seconds the vendor's own clock is off (fault clock_skew)

    # ---- what a dialect says ----

    @abstractmethod
    def endpoints(self) -> Sequence[Endpoint]: ...

    @abstractmethod
    async def admit(self, request: Request, endpoint: Endpoint) -> Response | None:
        """Check credentials and budget; return the vendor's own refusal, None when the call may go on."""

    def finish(self, request: Request, endpoint: Endpoint, response: Response) -> Response:
        """Add what the vendor adds to each answer (budget headers)."""
        return response

    @abstractmethod
    def throttled(self, seconds: float) -> Response:
        """Answer "too fast" as the vendor does, headers and body."""

    @abstractmethod
    def exhausted(self) -> Response:
        """Answer "the day's quota is used up" as the vendor does."""

    def unknown(self, request: Request) -> Response:
        """Answer for a path the vendor does not have."""
        return json_response({"message": "not found"}, status=404)

    def native(self, kind: str, world_id: int) -> str:
        """Return the native id of a world record."""
        return str(world_id)

    @abstractmethod
    def change(self, kind: str, native_id: str, fields: Mapping[str, Any]) -> Row | None:
        """Change native fields as a user of the vendor would (its modified time moves); None when there is no such row."""

    @abstractmethod
    def delete(self, kind: str, native_id: str) -> bool:
        """Delete as a user of the vendor would."""

    def changed(self, kind: str, native_id: str, before: Row | None, after: Row | None) -> None:  # noqa: B027 - most vendors tell nothing
        """Hear that a row was made (no `before`), edited, or removed altogether (no `after`), by whatever way.

        A dialect whose vendor sends webhooks posts them to `self.outbox` here, for the subscriptions it has; the rows are its own copies.
        """

    def subscriptions(self) -> list[Mapping[str, Any]]:
        """Return the subscriptions to webhooks that there are, for /_control: at least `id`, `url` and `active`."""
        return []

    def hook(self, url: str, secret: str) -> None:  # noqa: B027 - some vendors have an API for it only, or nothing
        """Enter an address for webhooks, and what proves them, by hand, as an administrator of the vendor would."""

    def live(self, kind: str) -> int:
        """Return how many records of a kind there are, deleted ones left out."""
        return sum(1 for row in self.tables[kind] if not row.get(self.gone))

    def address(self, sandbox: str) -> str:
        """Return the base address by which a source reaches this system in a sandbox."""
        return f"{sandbox}/{self.name}{self.base_path}"

    @abstractmethod
    def demo_auth(self) -> Mapping[str, str]:
        """Return the auth settings with which a source reaches this sandbox: `scheme` and its secrets."""

    def demo_options(self, sandbox: str) -> Mapping[str, str]:
        """Return the further options that a source needs to reach this system in a sandbox at that address."""
        return {}

    def truth(self, person: Person) -> list[dict[str, Any]]:
        """Return how this system knows a person: native id, spellings, state; contacts first, then leads."""
        found = []
        for kind, group in (("contact", self.world.profiles), ("lead", self.world.leads)):
            for profile in self._known(group, kind).get(person.id, ()):
                native_id = self.native(kind, profile.id)
                found.append({
                    "kind": kind, "object": self.objects[kind], "id": native_id,
                    "given": profile.given, "family": profile.family, "email": profile.email,
                    "moreEmails": list(profile.more_emails), "phone": profile.phone,
                    "createdAt": profile.created, "deleted": profile.deleted,
                    "mergedInto": self.native(kind, profile.merged_into) if profile.merged_into else None,
                })  # fmt: skip
        return found

    def _known(self, group: Mapping[str, list[Any]], kind: str) -> Mapping[int, list[Any]]:
        cached: dict[str, dict[int, list[Any]]] = self.__dict__.setdefault("_people", {})
        if kind not in cached:
            by_person: dict[int, list[Any]] = {}
            for profile in group.get(self.name, ()):
                by_person.setdefault(profile.person, []).append(profile)
            cached[kind] = by_person
        return cached[kind]

    # ---- what stands around every call ----

    def listen(self, faults: Faults) -> None:
        """Hear of changes from now on, where the vendor tells of any."""
        self.outbox = Outbox(self.name, self.clock, faults)
        if type(self).changed is not Dialect.changed:
            for kind, table in self.tables.items():
                table.watcher = partial(self.changed, kind)

    def routes(self, faults: Faults) -> list[BaseRoute]:
        self.listen(faults)
        return [
            *(Route(each.path, self._guarded(each, faults), methods=[each.method]) for each in self.endpoints()),
            Route("/{rest:path}", self._missing, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]

    async def _missing(self, request: Request) -> Response:
        self.calls[f"{request.method} (unknown)"] += 1
        return self.unknown(request)

    def _guarded(self, endpoint: Endpoint, faults: Faults) -> Handler:
        async def handle(request: Request) -> Response:
            self.calls[endpoint.template] += 1
            fault = faults.strikes(self.name, endpoint.template)
            broken = await self._break(request, fault) if fault else None
            if broken is not None:
                return broken
            refusal = await self.admit(request, endpoint)
            response = refusal if refusal is not None else await endpoint.handler(request)
            response = self.finish(request, endpoint, response)
            if fault is not None and fault.fault == "late_answer":
                await asyncio.sleep(fault.seconds)
            return cut_off(response, request, fault) if fault else response

        return handle

    async def _break(self, request: Request, fault: Fault) -> Response | None:
        """Answer in the handler's place, or prepare its answer to be spoiled (None)."""
        match fault.fault:
            case "status":
                return json_response({"message": "injected fault"}, status=fault.status)
            case "throttle":
                return self.throttled(fault.seconds)
            case "exhaust":
                return self.exhausted()
            case "html":
                return HTMLResponse("<!DOCTYPE html><html><body><h1>Down for maintenance</h1></body></html>", fault.status)
            case "latency":
                await asyncio.sleep(fault.seconds)
            case "hang":
                await asyncio.sleep(fault.seconds if math.isfinite(fault.seconds) and fault.seconds else 3600)
            case "revoke_token" if self.tokens is not None:
                self.tokens.revoke_access()
            case "clock_skew":
                self.skew = fault.seconds
        return None


def json_response(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status_code=status, headers=headers, media_type="application/json")


async def form(request: Request) -> dict[str, str]:
    """Return the fields of a URL-encoded body."""
    return dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))

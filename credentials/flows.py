"""How a request is authorised: one httpx.Auth per source.

A token is renewed before it ends, once for everyone who waits; the rotated refresh token is durable in the store before
the new access token is used, so no crash loses a grant. Across processes the store's compare-and-swap decides, and
whoever loses takes what the winner wrote, also when the vendor refuses the loser for using a token that just died.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson

from credentials.grants import Grant, GrantStore
from credentials.schemes import Auth, Basic, Encoding, Login, OAuth, OAuth1, Token
from credentials.signing import Signing
from model.clock import Clock
from model.errors import ExhaustedError, GrantLostError, ProtocolError, RetriableError, SourceError

EARLY = 60.0  # seconds before its end that a token is renewed
SHORT = 180.0  # a token that lives no longer is renewed after two thirds of its life
ENDING = 5.0  # seconds: a refused token that the vendor gives out once more is waited out when it ends within these
REREADS, REREAD_PAUSE = 5, 0.2  # how often, and after how many seconds, a refused renewal looks for another's success


class Fixed(httpx.Auth):
    """A secret that does not change: a token in a header, or Basic."""

    def __init__(self, scheme: Token | Basic, grant: Grant) -> None:
        if isinstance(scheme, Token):
            self._header, self._value = scheme.header, f"{scheme.prefix}{grant.token}"
        else:
            pair = f"{grant.username}{scheme.user_suffix}:{grant.password}".encode()
            self._header, self._value = "Authorization", f"Basic {base64.b64encode(pair).decode()}"

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers[self._header] = self._value
        yield request


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAnswer:
    """What the token endpoint said; `fault` is what the system's own classification made of it."""

    status: int
    body: bytes
    fault: SourceError | None


Exchange = Callable[[str, Mapping[str, str], Encoding], Awaitable[TokenAnswer]]


class Renewing(httpx.Auth):
    """Tokens that end: OAuth 2, or a login.

    A renewal is a task of its own: a caller who gives up waiting must not cut it off between the vendor's answer, which
    may have ended the old token, and the store.

    Args:
        scheme: of this source (`OAuth.at`).
        exchange: sends a token request (address, fields, encoding) under the source's budget and a deadline of its own.
        expired: tells from an answer that the token was not accepted (status alone does not tell).
    """

    def __init__(
        self, scheme: OAuth | Login, *, workspace: str, source: str, base_url: str, store: GrantStore, exchange: Exchange,
        expired: Callable[[httpx.Response], bool], clock: Clock,
    ) -> None:  # fmt: skip
        self._scheme, self._workspace, self._source, self._base_url = scheme, workspace, source, base_url
        self._store, self._exchange, self._expired, self._clock = store, exchange, expired, clock
        self._grant: Grant | None = None
        self._version = 0
        self._renewal: asyncio.Task[Grant] | None = None

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        grant = self._grant
        if grant is None or self._due(grant):
            grant = await self._renewed(None)
        self._authorise(request, grant)
        response = yield request
        if self._expired(response):
            self._authorise(request, await self._renewed(grant.access_token))
            yield request

    def _authorise(self, request: httpx.Request, grant: Grant) -> None:
        request.headers[self._scheme.header] = f"{self._scheme.prefix}{grant.access_token}"
        if grant.host and grant.host != self._base_url:
            request.url = httpx.URL(str(request.url).replace(self._base_url, grant.host, 1))
            request.headers["host"] = request.url.netloc.decode()

    def _due(self, grant: Grant) -> bool:
        margin = grant.lives / 3 if grant.lives < SHORT else EARLY
        return not grant.access_token or self._clock.now().timestamp() >= grant.expires_at - margin

    async def _renewed(self, failed: str | None) -> Grant:
        """Return a grant whose access token is not `failed`, renewing it unless somebody else has or does.

        Args:
            failed: the token that the system refused; None when the one at hand is just due.
        """
        if self._grant is not None and self._grant.access_token != failed and not self._due(self._grant):
            return self._grant
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(failed))
            self._renewal.add_done_callback(_looked_at)
        return await asyncio.shield(self._renewal)

    async def _renew(self, failed: str | None) -> Grant:
        grant = await self._loaded()
        if grant.access_token and grant.access_token != failed and not self._due(grant):
            return grant
        try:
            answer = await self._exchanged(grant)
            if failed is not None and answer["access_token"] == failed and (left := _lives(answer, ENDING)) < ENDING:
                await asyncio.sleep(left)
                answer = await self._exchanged(grant)
        except GrantLostError:
            # The token may have been used by another process a moment ago: what it stored counts.
            for _ in range(REREADS):
                again = await self._loaded()
                if again.access_token != grant.access_token:
                    return again
                await asyncio.sleep(REREAD_PAUSE)
            if not (isinstance(self._scheme, OAuth) and self._scheme.first_grant == "password" and grant.refresh_token):
                raise
            answer = await self._exchanged(grant.changed(refresh_token=""))
        return await self._kept(grant, answer)

    async def _loaded(self) -> Grant:
        found = await self._store.load(self._workspace, self._source)
        if found is None:
            raise GrantLostError("the source has no credentials: connect it again")
        self._version, self._grant = found
        return self._grant

    async def _kept(self, grant: Grant, answer: dict[str, Any]) -> Grant:
        """Make the new tokens durable, then use them.

        Some vendors give out the same token until it has ended: asking early is then no use, so it is renewed at its end.
        """
        left = _lives(answer, self._scheme.lifetime)
        lives = 0.0 if answer["access_token"] == grant.access_token else left
        host = answer.get(self._scheme.learns_host or "") or grant.host
        renewed = grant.changed(
            access_token=str(answer["access_token"]), refresh_token=str(answer.get("refresh_token") or grant.refresh_token), lives=lives,
            expires_at=self._clock.now().timestamp() + left, host=str(host).rstrip("/"),
        )  # fmt: skip
        if await self._store.save(self._workspace, self._source, renewed, version=self._version + 1):
            self._version, self._grant = self._version + 1, renewed
            return renewed
        return await self._loaded()

    async def _exchanged(self, grant: Grant) -> dict[str, Any]:
        scheme = self._scheme
        path = scheme.token_path
        address = path if "://" in path else self._base_url + path
        answer = await self._exchange(address, _asked(scheme, grant), scheme.body)
        try:
            body = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            body = None
        if answer.status < 300 and (tokens := _tokens(scheme, body)) is not None:
            return tokens
        code = str(body.get("error") or body.get("status") or "") if isinstance(body, dict) else ""
        # First, for it knows more than the code: Salesforce says invalid_grant for too many logins, too.
        if isinstance(answer.fault, RetriableError | ExhaustedError):
            raise answer.fault
        if isinstance(scheme, OAuth) and code in scheme.dead_grant:
            raise GrantLostError("the grant was revoked: connect the source again", upstream_code=code, status=answer.status)
        if not isinstance(body, dict):
            raise ProtocolError("the token endpoint answered with something its documents do not know", status=answer.status)
        raise GrantLostError("the token endpoint refused our credentials", upstream_code=code or None, status=answer.status)


def _asked(scheme: OAuth | Login, grant: Grant) -> dict[str, str]:
    if isinstance(scheme, Login):
        return {"username": grant.username, "password": grant.password}
    said = {"client_id": grant.client_id or scheme.public_client, "client_secret": grant.client_secret, **scheme.fields}
    if grant.refresh_token:
        return said | {"grant_type": "refresh_token", "refresh_token": grant.refresh_token}
    if scheme.first_grant == "password":
        return said | {"grant_type": "password", "username": grant.username, "password": grant.password}
    return said | {"grant_type": "client_credentials"}


def _tokens(scheme: OAuth | Login, body: Any) -> dict[str, Any] | None:
    """Return what was issued in OAuth's words, None when nothing was."""
    if isinstance(scheme, Login) and scheme.token is None:
        return {"access_token": body} if isinstance(body, str) and body else None
    token = body.get(scheme.token if isinstance(scheme, Login) else "access_token") if isinstance(body, dict) else None
    return {**body, "access_token": token} if token else None


def _lives(answer: Mapping[str, Any], default: float) -> float:
    """Return how many seconds a token that was given out is good for; 0 is an answer too."""
    said = answer.get("expires_in")
    return default if said in (None, "") else float(said)


def _looked_at(renewal: "asyncio.Task[Grant]") -> None:
    """Take note of the outcome: everybody who waited may have gone."""
    if not renewal.cancelled():
        renewal.exception()


def flow(
    scheme: Auth, grant: Grant, *, workspace: str, source: str, base_url: str, store: GrantStore, exchange: Exchange,
    expired: Callable[[httpx.Response], bool], clock: Clock,
) -> httpx.Auth:  # fmt: skip
    """Return the auth flow of a source."""
    if isinstance(scheme, OAuth1):
        return Signing(scheme, grant, clock=clock)
    if isinstance(scheme, OAuth | Login):
        return Renewing(
            scheme,
            workspace=workspace,
            source=source,
            base_url=base_url,
            store=store,
            exchange=exchange,
            expired=expired,
            clock=clock,
        )
    return Fixed(scheme, grant)

"""From what a workspace connected to an open `Source`."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from adapters.base import Adapter, Config
from adapters.wire import Request
from cache.entries import Cache
from credentials.flows import Exchange, TokenAnswer, flow
from credentials.grants import Grant, GrantStore
from credentials.schemes import Auth, Basic, Encoding, Login, OAuth, OAuth1, Token
from gateway.settings import SourceSettings
from model.clock import Clock
from model.errors import ConfigurationError, TokenExpiredError
from sources.breaker import Breaker
from sources.budget import Budget
from sources.client import client
from sources.reading import Reading
from sources.source import Source
from sources.transport import CALL, FAULT, Call, Guard, Retry
from store.sources import SourceRow

TOKEN_TIMEOUT = 15.0  # seconds for the exchange itself
TOKEN_WAIT = 1.0  # seconds in which a turn may be waited for and a passing failure tried again
NO_AUTH = httpx.Auth()  # sends requests as they are
_NEEDED: Mapping[type, tuple[str, ...]] = {
    OAuth: ("client_id", "client_secret"),
    OAuth1: ("client_id", "client_secret", "token", "token_secret"),
    Login: ("username", "password"),
    Token: ("token",),
    Basic: ("username", "password"),
}


class Opener:
    """Opens sources over shared parts.

    Args:
        adapters: by the system's name.
        budget: returns the budget of a vendor account's windows; sources of one account share it.
    """

    def __init__(
        self, *, adapters: Mapping[str, type[Adapter]], cache: Cache, grants: GrantStore, network: httpx.AsyncBaseTransport, budget: Callable[..., Budget], clock: Clock,
        rng: random.Random,
    ) -> None:  # fmt: skip
        self._adapters, self._cache, self._grants, self._network = adapters, cache, grants, network
        self._budget, self._clock, self._rng = budget, clock, rng
        self._budgets: dict[tuple[str, str], Budget] = {}

    async def open(self, row: SourceRow) -> Source:
        """Return the source, ready to be asked.

        Raises:
            ConfigurationError: its system is not known, or it has no credentials.
        """
        adapter_class = self._adapters.get(row.system)
        if adapter_class is None:
            raise ConfigurationError(f"sources.{row.id}.system: there is no system {row.system!r}")
        config = row.config
        adapter = adapter_class(
            Config(
                source=row.id, base_url=row.base_url, api_version=config.get("api_version"), region=config.get("region", "US"),
                currency=config.get("currency", "USD"), web_url=config.get("web_url"), options=config.get("options", {}),
            )
        )  # fmt: skip
        found = await self._grants.load(row.workspace, row.id)
        if found is None:
            raise ConfigurationError(f"sources.{row.id}.auth: no credentials are stored")
        account = (row.system, row.base_url)
        budget = self._budgets.get(account)
        if budget is None:
            budget = self._budgets[account] = self._budget(adapter.windows, account=":".join(account))
        guard = Guard(self._network, adapter=adapter, budget=budget, breaker=Breaker(self._clock), clock=self._clock)
        scheme = adapter.auth[found[1].scheme]
        if isinstance(scheme, OAuth):
            scheme = _placed(scheme, row.id, row.base_url, config.get("options", {}))
        http = client(Retry(guard, clock=self._clock, rng=self._rng))
        return Source(
            workspace=row.workspace, id=row.id, label=row.label, rank=row.rank, adapter=adapter,
            client=http,
            auth=flow(
                scheme, found[1], workspace=row.workspace, source=row.id, base_url=row.base_url, store=self._grants,
                exchange=_exchange(http, self._clock), expired=_expired, clock=self._clock,
            ),
            budget=budget, cache=self._cache, clock=self._clock, state=row.state, reason=row.reason, account=row.account,  # type: ignore[arg-type]
        )  # fmt: skip


def _exchange(http: httpx.AsyncClient, clock: Clock) -> Exchange:
    """Return how a source's token requests are sent: through the same breaker, budget and retry as all its calls.

    Trying again is safe even where tokens rotate: should the lost answer have carried the new token, the old one is dead
    whether it is sent again or not.
    """

    async def exchange(url: str, fields: Mapping[str, str], encoding: Encoding) -> TokenAnswer:
        asked = Request(operation="token", method="POST", path=url)
        call = Call(asked, Reading(deadline=clock.monotonic() + TOKEN_WAIT, answer_within=TOKEN_TIMEOUT))
        said, auth = dict(fields), NO_AUTH
        if encoding == "basic":
            auth = httpx.BasicAuth(said.pop("client_id"), said.pop("client_secret"))
        body: Any = {{"form": "data", "json": "json", "query": "params", "basic": "data"}[encoding]: said}
        answer = await http.post(url, auth=auth, extensions={CALL: call}, **body)
        return TokenAnswer(status=answer.status_code, body=answer.content, fault=answer.extensions.get(FAULT))

    return exchange


def _expired(response: httpx.Response) -> bool:
    return isinstance(response.extensions.get(FAULT), TokenExpiredError)


def row_of(said: SourceSettings, *, workspace: str, rank: int, home: str | None = None) -> SourceRow:
    """Return a configured source as it is stored.

    Args:
        home: the base address that its credentials tell (`Adapter.home`).

    Raises:
        ConfigurationError: neither they nor the settings name one.
    """
    base_url = said.base_url or home
    if base_url is None:
        raise ConfigurationError(f"sources.{said.id}.base_url is missing")
    config = {
        "region": said.region, "currency": said.currency, "options": said.options,
        **({"api_version": said.api_version} if said.api_version else {}), **({"web_url": str(said.web_url).rstrip("/")} if said.web_url else {}),
    }  # fmt: skip
    return SourceRow(
        workspace=workspace,
        id=said.id,
        system=said.system,
        label=said.label or said.id,
        base_url=str(base_url).rstrip("/"),
        rank=rank,
        config=config,
    )


def _placed(scheme: OAuth, source: str, base_url: str, options: Mapping[str, str]) -> OAuth:
    try:
        return scheme.at(base_url, options)
    except ConfigurationError as error:
        raise ConfigurationError(f"sources.{source}.options: {error.message}") from None


def grant_of(said: SourceSettings, adapters: Mapping[str, type[Adapter]]) -> Grant:
    """Return the credentials a source was configured with.

    Raises:
        ConfigurationError: the scheme is not one of the system's, or a secret it needs is missing.
    """
    adapter_class = adapters.get(said.system)
    if adapter_class is None:
        raise ConfigurationError(
            f"sources.{said.id}.system: there is no system {said.system!r}; there are: {', '.join(adapters)}"
        )
    scheme = adapter_class.auth.get(said.auth.scheme)
    if scheme is None:
        raise ConfigurationError(f"sources.{said.id}.auth.scheme: {said.system} knows {', '.join(adapter_class.auth)}")
    if isinstance(scheme, OAuth):
        _placed(scheme, said.id, str(said.base_url).rstrip("/"), said.options)
    secrets = said.auth.secrets()
    for name in _needed(scheme):
        if not secrets.get(name):
            raise ConfigurationError(f"sources.{said.id}.auth.{name} is missing")
    return Grant.of(secrets)


def _needed(scheme: Auth) -> tuple[str, ...]:
    """Return the secrets without which a scheme cannot authorise anything."""
    if not isinstance(scheme, OAuth):
        return _NEEDED[type(scheme)]
    client = () if scheme.public_client else _NEEDED[OAuth]
    return (*client, "username", "password") if scheme.first_grant == "password" else client

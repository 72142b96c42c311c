"""Endpoints as their owners handle them: made, changed, given a new secret, replayed, removed."""

import re
import secrets as chance
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec
from pydantic import Field

from credentials.vault import Vault
from model.clock import Clock
from model.errors import ConflictError, ExpiredEventError, InvalidRequestError, NotFoundError
from model.events import Event, EventOp
from model.records import Kind
from store.endpoints import AttemptRow, DeliveryRow, DeliveryState, EndpointRow, EndpointRows, Entry, Tally
from store.events import EventRows
from sync.destinations import Destinations
from sync.envelope import body_of, fingerprint, new_secret, word
from sync.retry import RetryPolicy

OVERLAP = timedelta(hours=24)  # in which both secrets sign, unless it is said otherwise
LONGEST_OVERLAP = timedelta(days=30)
MOST = 100  # endpoints of a workspace
RATE_WINDOW = timedelta(hours=24)
_MAX_URL = 2000  # characters
_MAX_PATTERNS = 100
_PAGE = 500
_PATTERN = re.compile(r"(\*|[a-z_]+)\.(\*|[a-z]+)|\*")
_KINDS, _OPS = frozenset(get_args(Kind)), frozenset(op.lower() for op in get_args(EventOp))


class DeliveryPolicy(RetryPolicy):
    """
    Attributes:
        parallel: first sends under way at once. One keeps the order of events; more is faster to a receiver that needs no order.
    """

    parallel: int = Field(default=1, ge=1, le=32)


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint's deliveries are signed with; the former secret signs, too, until `until`."""

    current: str
    former: str | None = None
    until: datetime | None = None

    def signing(self, now: datetime) -> list[str]:
        """Return the secrets that sign now, the current one first."""
        former = [self.former] if self.former is not None and self.until is not None and now < self.until else []
        return [self.current, *former]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint as its owner sees it."""

    row: EndpointRow
    tally: Tally
    secret_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One event's way to one endpoint."""

    row: DeliveryRow
    attempts: Sequence[AttemptRow]


def wanted(patterns: Sequence[str]) -> Callable[[Event], bool]:
    """Return the test for events that one of the patterns names: "*", "contact.*", "*.deleted", "deal.updated"."""
    if "*" in patterns:
        return lambda _: True
    pairs = {tuple(each.split(".")) for each in patterns}

    def takes(event: Event) -> bool:
        kind, op = word(event).rsplit(".", 1)
        return not pairs.isdisjoint({(kind, op), (kind, "*"), ("*", op), ("*", "*")})

    return takes


def check_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns, each once.

    Raises:
        InvalidRequestError: one of them can never match an event, or there are none or too many.
    """
    said = tuple(dict.fromkeys(patterns))
    if not 1 <= len(said) <= _MAX_PATTERNS:
        raise InvalidRequestError(f"between 1 and {_MAX_PATTERNS} kinds of events")
    for each in said:
        found = _PATTERN.fullmatch(each)
        if found is None or (each != "*" and not (found[1] in _KINDS | {"*"} and found[2] in _OPS | {"*"})):
            raise InvalidRequestError(
                f'an event is "*", or <object>.<change> such as "contact.*" or "deal.updated"; objects: {", ".join(sorted(_KINDS))}; '
                f"changes: {', '.join(sorted(_OPS))}"
            )
    return said


def number_of(said: str) -> int:
    """Return the number that an event's id ("event:12") or cursor ("12") stands for.

    Raises:
        InvalidRequestError: it is neither.
    """
    text = said.removeprefix("event:")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequestError("an event is named by its id or its cursor")
    return int(text)


class Endpoints:
    """The endpoints of all workspaces."""

    def __init__(self, rows: EndpointRows, events: EventRows, vault: Vault, destinations: Destinations, *, clock: Clock) -> None:
        self._rows, self._events, self._vault = rows, events, vault
        self._destinations, self._clock = destinations, clock

    async def all(self, workspace: str) -> list[Endpoint]:
        tallies = await self._rows.tallies(workspace, since=self._clock.now() - RATE_WINDOW)
        return [self._shown(workspace, row, tallies) for row in await self._rows.all(workspace)]

    async def one(self, workspace: str, id: str) -> Endpoint:
        """Raises NotFoundError."""
        row = await self._row(workspace, id)
        return self._shown(workspace, row, await self._rows.tallies(workspace, since=self._clock.now() - RATE_WINDOW))

    async def add(
        self, workspace: str, url: str, events: Sequence[str], policy: Mapping[str, Any] | None = None
    ) -> tuple[str, str]:
        """Make an endpoint that is sent what happens from now on; return its id, and its secret, which is not told again.

        Raises:
            InvalidRequestError: url, events or policy are no good.
            DestinationError: we may not send there.
        """
        url, patterns, checked = await self._checked(url, events, policy, None)
        if len(await self._rows.all(workspace)) >= MOST:
            raise InvalidRequestError(f"a workspace has at most {MOST} endpoints")
        id, secret = f"whe_{chance.token_hex(8)}", new_secret()
        _, last = await self._events.bounds(workspace)
        row = EndpointRow(
            id=id, url=url, events=patterns, sealed=self._sealed(workspace, id, Secrets(current=secret)), policy=checked.json_value(),
            position=last, created_at=self._clock.now(),
        )  # fmt: skip
        await self._rows.add(workspace, row)
        return id, secret

    async def change(
        self, workspace: str, id: str, url: str, events: Sequence[str], policy: Mapping[str, Any] | None = None
    ) -> None:
        """Replace url and events, and the policy where one is given; the endpoint is ACTIVE again and goes on where it stopped.

        Raises:
            NotFoundError: there is none.
            InvalidRequestError, DestinationError: as in `add`.
        """
        row = await self._row(workspace, id)
        url, patterns, checked = await self._checked(url, events, policy, row)
        if not await self._rows.change(workspace, id, url=url, events=patterns, policy=checked.json_value()):
            raise NotFoundError("there is no such endpoint")

    async def rotate(self, workspace: str, id: str, *, overlap: timedelta = OVERLAP) -> str:
        """Return a new secret, which is not told again; the one before signs beside it for `overlap`.

        Raises:
            NotFoundError: there is none.
            InvalidRequestError: the overlap is negative or too long.
            ConflictError: someone else gave it a new secret in this moment.
        """
        if not timedelta() <= overlap <= LONGEST_OVERLAP:
            raise InvalidRequestError(f"an overlap lasts between nothing and {LONGEST_OVERLAP.days} days")
        row = await self._row(workspace, id)
        former, secret = self.secrets(workspace, row).current, new_secret()
        fresh = Secrets(current=secret, former=former, until=self._clock.now() + overlap)
        if not await self._rows.reseal(workspace, id, self._sealed(workspace, id, fresh), was=row.sealed):
            raise ConflictError("the endpoint was given a new secret in this moment")
        return secret

    async def remove(self, workspace: str, id: str) -> None:
        """Forget an endpoint and what it was still to be sent. Raises NotFoundError."""
        if not await self._rows.remove(workspace, id):
            raise NotFoundError("there is no such endpoint")

    async def replay_parked(self, workspace: str, id: str) -> int:
        """Send everything again that was given up; return how many deliveries that is. Raises NotFoundError."""
        await self._row(workspace, id)
        return await self._rows.unpark(workspace, id, now=self._clock.now())

    async def replay_since(self, workspace: str, id: str, seq: int, *, upto: int | None = None) -> int:
        """Send again what the endpoint wants of the events after number `seq`; return how many deliveries that is.

        Events that its position has not passed come by themselves, and what waits to be sent is not sent twice.

        Args:
            upto: the number of the last event; None for all that it has passed.

        Raises:
            NotFoundError: there is no such endpoint.
            ExpiredEventError: what came after `seq` is not kept any more.
            InvalidRequestError: there is no such number yet.
        """
        row = await self._row(workspace, id)
        first, last = await self._events.bounds(workspace)
        if seq < first - 1:
            raise ExpiredEventError(f"events are kept from number {first} on")
        if seq > last:
            raise InvalidRequestError("this is none of this log's events")
        end = row.position if upto is None else min(upto, row.position)
        takes, count = wanted(row.events), 0
        while seq < end and (page := await self._events.since(workspace, seq, limit=_PAGE)):
            seq = page[-1].seq
            entries = [Entry(seq=event.seq, body=body_of(event)) for event in page if event.seq <= end and takes(event)]
            count += await self._rows.enter_again(workspace, id, entries, now=self._clock.now()) if entries else 0
        return count

    async def replay_event(self, workspace: str, id: str, seq: int) -> int:
        """Send one event again; return 1, or 0 where the endpoint does not want it or has not come to it. Raises as `replay_since`."""
        return await self.replay_since(workspace, id, seq - 1, upto=seq)

    async def deliveries(
        self, workspace: str, id: str, *, states: Sequence[DeliveryState] | None = None, limit: int = 20
    ) -> list[Delivered]:
        """Return deliveries with their attempts, youngest event first."""
        rows = await self._rows.deliveries(workspace, id, states=states, limit=limit)
        made = await self._rows.attempts(workspace, id, [row.seq for row in rows])
        return [Delivered(row=row, attempts=[each for each in made if each.seq == row.seq]) for row in rows]

    def secrets(self, workspace: str, row: EndpointRow) -> Secrets:
        return msgspec.json.decode(self._vault.open(row.sealed, bound_to=_bound(workspace, row.id)), type=Secrets)

    def _sealed(self, workspace: str, id: str, secrets: Secrets) -> bytes:
        return self._vault.seal(msgspec.json.encode(secrets), bound_to=_bound(workspace, id))

    def _shown(self, workspace: str, row: EndpointRow, tallies: Mapping[str, Tally]) -> Endpoint:
        secret = self.secrets(workspace, row).current
        return Endpoint(row=row, tally=tallies.get(row.id, Tally()), secret_fingerprint=fingerprint(secret))

    async def _row(self, workspace: str, id: str) -> EndpointRow:
        if (row := await self._rows.get(workspace, id)) is None:
            raise NotFoundError("there is no such endpoint")
        return row

    async def _checked(
        self, url: str, events: Sequence[str], policy: Mapping[str, Any] | None, known: EndpointRow | None
    ) -> tuple[str, tuple[str, ...], DeliveryPolicy]:
        patterns = check_patterns(events)
        said = policy if policy is not None else known.policy if known is not None else {}
        checked = DeliveryPolicy.parse(said)
        if len(url) > _MAX_URL:
            raise InvalidRequestError(f"a URL has at most {_MAX_URL} characters")
        await self._destinations.check(url)
        return url, patterns, checked


def _bound(workspace: str, id: str) -> str:
    return f"endpoint/{workspace}/{id}"

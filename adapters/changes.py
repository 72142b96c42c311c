"""How a system tells what changed: webhooks that it sends, and feeds that it is asked for. Both give changes of one shape.

A change is a hint: what counts is the record as its system has it when it is read.
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from model.errors import ProtocolError
from model.records import Kind, Row

if TYPE_CHECKING:
    from adapters.base import Adapter, Api

ChangeOp = Literal["CHANGED", "DELETED", "MERGED", "ERASED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a system told of one record.

    Attributes:
        op: CHANGED: made, edited or brought back. DELETED: gone. MERGED: gone into `into`. ERASED: a person asked to be forgotten, by the
            system's compliance channel.
        at: when, by the system's clock; None where it does not tell.
        into: the native id that lives on after a merge.
        row: the record now, in the shape of `read` with every field that was asked for, where a feed brings it; None: read it.
    """

    kind: Kind
    native_id: str
    op: ChangeOp = "CHANGED"
    at: datetime | None = None
    into: str | None = None
    row: Row | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a feed had to say.

    Attributes:
        changes: in no stated order; may repeat what earlier ones said (overlap).
        cursor: to be stored once the changes are applied, and given next time.
        more: ask again at once.
    """

    changes: list[Change]
    cursor: str
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What can be asked about changes of one kind (`Adapter.changes`).

    Attributes:
        how: "keyset" by time and id, "delta" by the system's token, "offset" into its log of events.
        overlap: seconds that each pass reaches back behind what it has seen: for commits and search indexes that come late.
        deletes: the feed tells deleted records.
        merges: the feed tells merged records.
        interval: seconds between two passes, at the least; the pace adapts above it.
        longest: seconds between two passes, at the most.
        life: seconds after which a cursor is no good any more; None: no end.
    """

    how: Literal["keyset", "delta", "offset"] = "keyset"
    overlap: float = 60.0
    deletes: bool = False
    merges: bool = False
    interval: float = 30.0
    longest: float = 300.0
    life: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """How a system sends webhooks.

    Attributes:
        kinds: whose changes it sends.
        deletes: it tells deleted records.
        merges: it tells merged records.
        secret: what deliveries are proved with: "app", the client secret of our app; "issued", given out by `watch`; "ours", made by us and
            handed over by `watch` or by an administrator.
        subscribes: `watch` subscribes through the system's API; else an administrator enters address and secret by hand.
        life: seconds after which a subscription ends unless it is renewed; None: no end.
        accounts: deliveries name the account they are of, so that one address may serve many.
        delay: seconds within which a change is told normally.
    """

    kinds: frozenset[Kind]
    deletes: bool = True
    merges: bool = False
    secret: Literal["app", "issued", "ours"] = "ours"  # noqa: S105 - a word for who makes it
    subscribes: bool = True
    life: float | None = None
    accounts: bool = False
    delay: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A webhook as it came in.

    Attributes:
        url: the public address as the system called it, with its query.
        headers: names in lower case.
        at: when it came in, by our clock.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """One event of a delivery. `id` tells it from every other event of the account, and is the same when it is delivered again.

    The change's native id may be another name of the record, which `Adapter.named` knows.
    """

    id: str
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a delivery that was proved says.

    Attributes:
        account: the vendor account it is of, as `check` tells it; None where deliveries do not name it.
        hints: events of kinds that we know; [] where there is nothing for us, such as a handshake.
        answer: what the system wants to be answered; b"" for most.
    """

    account: str | None = None
    hints: Sequence[Hint] = ()
    answer: bytes = b""
    media_type: str = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A subscription at the system.

    Attributes:
        secret: what the system issued for it; it is told once, so None may mean that it was told before.
        expires_at: None: no end.
    """

    native_id: str
    expires_at: datetime | None = None
    secret: str | None = None


def matches(said: str, *wanted: str) -> bool:
    """Compare a signature or password with those that are right, in a time that tells nothing."""
    return any([hmac.compare_digest(said.encode(), each.encode()) for each in wanted])  # noqa: C419 - all are compared


def recent(then: datetime, now: datetime, *, within: float) -> bool:
    """Tell whether a signed time is at most `within` seconds from ours, before or after."""
    return abs((now - then).total_seconds()) <= within


def digest_of(*parts: object) -> str:
    """Return an event id for systems that give none: the same for the same parts."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).hexdigest()


BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)  # before anything: where a kind has no record yet, whatever our clock says


class _Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """The cursor of a key-set feed.

    Attributes:
        seen: the youngest change seen so far, by the system's clock.
        since: where this pass began.
        after: (time, id) of the last row of the page before, inside a pass of several pages.
    """

    seen: datetime
    since: datetime
    after: tuple[datetime, str] | None = None


async def scanned_changes(
    adapter: "Adapter", api: "Api", kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime
) -> Changes:
    """Read a kind's changes by (time, id) with the overlap of its `Feed`, through the adapter's own `scan`.

    Without a cursor it begins at the youngest row the system has, so that a clock that is off loses nothing. Ties are `scan`'s to
    keep together. Deleted rows are not told here.
    """
    from adapters.base import Position, Scan

    def placed(row: Row) -> Position | None:
        native_id, _, updated = api.place(kind, row)
        return Position.of(updated, native_id) if updated is not None else None

    facts = adapter.kinds[kind]
    overlap = timedelta(seconds=facts.feed.overlap if facts.feed else 0.0)
    if cursor is None:
        # Not one row alone: where many tie on the youngest time, a page of the tie would be fetched for each.
        newest = await adapter.scan(api, kind, Scan(order="updated", descending=True, size=min(facts.page, 50), fields=fields))
        at = max((spot.at for row in newest.rows if (spot := placed(row)) is not None), default=BEGINNING)
        return Changes(changes=[], cursor=_encoded(_Place(seen=at, since=at - overlap)))
    place = place_of(cursor)
    after = Position.of(*place.after) if place.after else None
    page = await adapter.scan(
        api, kind, Scan(order="updated", after=after, updated_since=place.since, size=facts.page, fields=fields)
    )
    found = [(spot, row) for row in page.rows if (spot := placed(row)) is not None]
    changes = [Change(kind=kind, native_id=spot.native_id, at=spot.at, row=row) for spot, row in found]
    seen = max((spot.at for spot, _ in found), default=place.seen)
    seen = max(seen, place.seen)
    if page.end or not found:
        return Changes(changes=changes, cursor=_encoded(_Place(seen=seen, since=seen - overlap)))
    last = found[-1][0]
    if after is not None and last <= after:
        raise ProtocolError(f"{adapter.name}: a page of changed {kind} records does not go on")
    return Changes(
        changes=changes, cursor=_encoded(_Place(seen=seen, since=place.since, after=(last.at, last.native_id))), more=True
    )


def place_of(cursor: str) -> _Place:
    """Return the place that a key-set cursor stands for."""
    return msgspec.json.decode(cursor, type=_Place)


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


def instant(milliseconds: float) -> datetime:
    """Return the moment that is so many milliseconds after 1970."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)

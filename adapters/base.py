"""What an adapter is: facts about one system, and the reading verbs.

An adapter keeps no state but its configuration. It reads as if its system never failed: auth, budgets, retries and
deadlines stand around `api.send`. Everything the core plans with is data here; no code outside `adapters/` may know a
system by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeVar

from adapters.wire import Api, Request, Response
from credentials.schemes import Auth, Basic, OAuth, Token
from model.errors import SourceError, UnsupportedError
from model.records import Kind, ObjectType, Row

T = TypeVar("T")
OrderField = Literal["created", "updated"]
FindKey = Literal["email", "phone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One budget the vendor counts calls by.

    Attributes:
        limit: tokens the window holds; the fact from the sheet until headers teach better.
        period: seconds in which `limit` tokens come back; for kind "parallel" unused.
        kind: "bucket" refills evenly, "fixed" is full again at each reset, "rolling" never lets more than `limit` through
            in any `period` (for small limits), "parallel" counts calls in flight.
        every_call: each call takes one token; else only calls that name the window in `Request.cost`.
    """

    name: str
    limit: float
    period: float = 1.0
    kind: Literal["bucket", "fixed", "rolling", "parallel"] = "bucket"
    every_call: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What an answer told about a window; None means it did not tell.

    Attributes:
        remaining: tokens left now.
        reset_after: seconds until the window is full again.
        per_second: tokens that come back each second.
    """

    window: str
    limit: float | None = None
    remaining: float | None = None
    reset_after: float | None = None
    per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KindFacts:
    """What a system can do with one kind.

    Attributes:
        object: the system's own name for it.
        mapping: the default mapping document, version 1 (`mapping/spec.py`): target field → rule over native paths.
        custom_prefix: where custom fields stand in a row, with a trailing dot, such as "properties."; "" at the top.
        read_batch: most ids in one `read` call.
        find: keys that `find` can look records up by.
        find_batch: most values in one `find` call.
        unique: keys that no two live records of this kind share at this system.
        orders: fields that `scan` can sort by, ascending and descending.
        page: most rows in one `scan` call.
    """

    object: str
    mapping: Mapping[str, Any]
    custom_prefix: str = ""
    read_batch: int = 100
    find: frozenset[FindKey] = frozenset()
    find_batch: int = 1
    unique: frozenset[FindKey] = frozenset()
    orders: frozenset[OrderField] = frozenset()
    page: int = 100


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the total order of one source's rows: the order field's value, then the id.

    Ids compare by length, then text, so that numbers in text sort as numbers.
    """

    at: datetime
    id_length: int
    native_id: str

    @classmethod
    def of(cls, at: datetime, native_id: str) -> "Position":
        return cls(at, len(native_id), native_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A request for the next rows of a kind in one total order: (order field, id), both in the same direction.

    Attributes:
        after: strictly after this place, None from the start.
        updated_since, updated_before: only rows changed in this half-open span; a filter, whatever the order.
        size: rows wanted; the adapter may return more or fewer, but never none before the end.
        fields: native paths wanted (projection), always with the id and both times.
    """

    order: OrderField = "created"
    descending: bool = False
    after: Position | None = None
    updated_since: datetime | None = None
    updated_before: datetime | None = None
    size: int = 100
    fields: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Rows in the order asked. A group of rows that tie on the order field is complete, never cut in two, unless the
    system itself breaks ties by id.

    Attributes:
        end: there is nothing after these rows.
    """

    rows: list[Row]
    end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """The rows that belong to one parent, in the system's own order, the primary one first where it knows one.

    Attributes:
        more: the parent has more than were asked for.
    """

    rows: list[Row] = field(default_factory=list)
    more: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One source's settings as an adapter sees them.

    Attributes:
        base_url: without a trailing slash; API paths are appended.
        api_version: None takes the adapter's default.
        region: ISO country for phone numbers written nationally.
        currency: for amounts whose system names none.
    """

    source: str
    base_url: str
    api_version: str | None = None
    region: str = "US"
    currency: str = "USD"
    web_url: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What `check` found: the vendor account the credentials belong to, by which budgets are shared."""

    account: str
    name: str | None = None
    unreadable: Sequence[str] = ()


class Adapter:
    """One system. Subclasses state facts and override the verbs their system can serve.

    Rows a verb returns are frozen by convention: nobody changes them, they may come from a cache.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    api_version: ClassVar[str]
    kinds: ClassVar[Mapping[Kind, KindFacts]]
    relations: ClassVar[frozenset[tuple[Kind, Kind]]] = frozenset()  # (of, kind): what `related` can serve
    windows: ClassVar[tuple[Window, ...]] = ()
    auth: ClassVar[Mapping[str, Auth]]  # by the name used in `sources[].auth.scheme`
    evidence: ClassVar[str] = "E0"  # the highest level that a test shows, see docs/systems.md
    shown_by: ClassVar[str] = ""  # that test

    def __init__(self, config: Config) -> None:
        self.config = config

    async def check(self, api: Api) -> Checked:
        """Ask the cheapest thing that proves the credentials; return whose they are."""
        raise UnsupportedError(f"{self.name} cannot be checked")

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """Fetch the kind's fields, options and stages. Callers use the cached `api.described(kind)`."""
        raise UnsupportedError(f"{self.name} does not describe {kind}")

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """Return rows in the order of `ids`, None where the system has none (deleted ones count as none).

        Args:
            ids: native ids, distinct, any number: the adapter splits them.
            fields: native paths wanted.
        """
        raise UnsupportedError(f"{self.name} does not read {kind}")

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """Return, for each parent id of kind `of`, its rows of `kind`, in the order of `ids`.

        Args:
            first: at most this many rows a parent; one more than asked is never fetched where the system lets us avoid it.
        """
        raise UnsupportedError(f"{self.name} has no {kind} of {of}")

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """Return the live rows that carry any of these values, each once, in no stated order.

        Args:
            values: normalised: e-mail addresses in lower case, phones in E.164.

        The result may hold rows that only look alike (a search matched a substring): the source filters by the mapped keys.
        """
        raise UnsupportedError(f"{self.name} cannot find {kind} by {key}")

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """Return the next rows in the total order that `scan` names. See `Scan` and `Page`."""
        raise UnsupportedError(f"{self.name} cannot list {kind}")

    def classify(self, response: Response) -> SourceError | None:
        """Tell what went wrong from status, body code and body kind together; None when nothing did."""
        raise NotImplementedError

    def learn(self, response: Response) -> Sequence[Learned]:
        """Read what the answer's headers or body say about the budgets."""
        return ()

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        """Return where a person sees the record in the system's own pages, None when unknown."""
        return None


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Split into runs of at most `size`, in order."""
    return (items[start : start + size] for start in range(0, len(items), size))


__all__ = [
    "Adapter", "Api", "Auth", "Basic", "Checked", "Config", "FindKey", "KindFacts", "Learned", "OAuth", "OrderField",
    "Page", "Position", "Related", "Request", "Response", "Scan", "Token", "Window", "batches",
]  # fmt: skip

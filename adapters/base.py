"""What an adapter is: facts about one system, and the verbs that read and write.

An adapter keeps no state but its configuration. It reads as if its system never failed: auth, budgets, retries and
deadlines stand around `api.send`. Everything the core plans with is data here; no code outside `adapters/` may know a
system by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, TypeVar

from adapters.changes import Changes, Delivery, Feed, Heard, Push, Watch
from adapters.wire import Api, Request, Response, answer_or_none, code_in, undocumented
from adapters.writing import Outcome, Write, WriteVerb
from credentials.schemes import Auth, Basic, Login, OAuth, OAuth1, Token
from model.errors import SourceError, UnsupportedError
from model.records import Kind, ObjectType, Row

T = TypeVar("T")
OrderField = Literal["created", "updated"]
FindKey = Literal["email", "phone", "domain"]


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
        read_batch: most ids in one `read` call; 0: records of this kind cannot be read by id.
        find: keys that `find` can look records up by.
        find_batch: most values in one `find` call.
        unique: keys that no two live records of this kind share at this system.
        orders: fields that `scan` can sort by, ascending and descending.
        page: most rows in one `scan` call.
        writes: target field → where a row that is written has it (`mapping/native.py`); a path in short form. Empty: the kind
            cannot be written.
        verbs: what `write` can do.
        write_batch: most records in one `write` call.
        upsert_by: keys by which the system itself creates or updates, in one step.
        links: kinds that a written record can be tied to → the path that takes the other's id, None where the adapter ties
            them in its own way.
        if_version: the system itself compares versions before it writes.
        lag: seconds in which `find` and `scan` may not show yet what was written; `read` always does.
        feed: what `changes` can tell of this kind; None: nothing, so only a listing of everything finds what changed.
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
    writes: Mapping[str, Any] = field(default_factory=dict)
    verbs: frozenset[WriteVerb] = frozenset()
    write_batch: int = 1
    upsert_by: frozenset[FindKey] = frozenset()
    links: Mapping[Kind, str | None] = field(default_factory=dict)
    if_version: bool = False
    lag: float = 0.0
    feed: Feed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """How a change at the system can reach us by the system's own means; words for people, but for `bound`.

    Attributes:
        push: how it tells by itself, and how that is verified; "" when it cannot.
        feed: how it is asked what changed; "" when only listing everything tells.
        deletes: how deleted and merged records are seen; "" when they are not.
        bound: seconds within which a change is told at the best; None where the vendor promises nothing.
        why: the reason for the bound, or for there being none.
    """

    push: str = ""
    feed: str = ""
    deletes: str = ""
    bound: float | None = None
    why: str = ""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomPage:
    """Rows of a custom object, in the system's own stable order. `next` asks for the following ones; None at the end."""

    rows: list[Row]
    next: str | None


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
    # Seconds for which nobody calls after a connection failed, at systems that block in place of answering "too many"; None: others.
    pause_when_cut: ClassVar[float | None] = None
    auth: ClassVar[Mapping[str, Auth]]  # by the name used in `sources[].auth.scheme`
    evidence: ClassVar[str] = "E0"  # the highest level that a test shows, see docs/systems.md
    shown_by: ClassVar[str] = ""  # that test
    live: ClassVar[Live] = Live()
    push: ClassVar[Push | None] = None  # how the system sends webhooks; None: it does not

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def home(cls, secrets: Mapping[str, str]) -> str | None:
        """Return the base address that credentials tell by themselves; None where it must be configured."""
        return None

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
            values: normalised: e-mail addresses in lower case, phones in E.164, web domains as "northwind.example" (accounts).

        The result may hold rows that only look alike (a search matched a substring): the source filters by the mapped keys.
        """
        raise UnsupportedError(f"{self.name} cannot find {kind} by {key}")

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """Return the next rows in the total order that `scan` names. See `Scan` and `Page`."""
        raise UnsupportedError(f"{self.name} cannot list {kind}")

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """Write records, and return one outcome each, in the order of `writes`.

        A call that fails is the outcome of the records in it (`adapters/writing.py: one_by_one`, `settled`), since others may have been
        written: nothing is raised but UnsupportedError. A request is `safe` only when all of its writes are `repeatable`.

        Args:
            writes: any number and any mixture of verbs: the adapter splits them. No two are of the same record.
        """
        raise UnsupportedError(f"{self.name} does not write {kind}")

    # ---- changes ----

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        """Return what changed since `cursor`, made and edited and, where the kind's `Feed` says so, deleted and merged records.

        Args:
            cursor: of the answer before; None: begin with what changes from now on. A system that can only begin by listing everything
                gives all of it as changes.
            fields: native paths wanted in rows that it brings.
            now: by our clock, which may be off.

        Raises:
            CursorExpiredError: the system has forgotten where that was: begin anew, and look for what is missing.
        """
        raise UnsupportedError(f"{self.name} does not tell what {kind} records changed")

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        """Prove a webhook and read it; asks the system nothing.

        Args:
            secrets: any of them may be the right one; the current ones first. During a rotation there are two.

        Raises:
            SignatureError: it is not proved, or too old.
            ProtocolError: it is proved, and cannot be understood.
        """
        raise UnsupportedError(f"{cls.name} sends no webhooks")

    async def named(self, api: Api, kind: Kind, names: Sequence[str]) -> list[str | None]:
        """Return the native ids of records that webhooks name, in the order of `names`: deleted ones too, None where there is none.

        Most webhooks name records by their native ids; an adapter whose system does otherwise asks whose the names are.
        """
        return list(names)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        """Make the system send changes of every kind in `push.kinds` to `url`; return the subscriptions there are now.

        Those that are there already and good are kept, those that end soon or were switched off are renewed: this is called again and again.

        Args:
            secret: what deliveries are to be proved with where `push.secret` is "ours".
        """
        raise UnsupportedError(f"{self.name} takes no subscriptions")

    async def unwatch(self, api: Api, url: str) -> int:
        """End every subscription to `url`; return how many there were."""
        raise UnsupportedError(f"{self.name} takes no subscriptions")

    async def objects(self, api: Api) -> list[ObjectType]:
        """Return the account's custom objects with their fields, [] where it has none."""
        raise UnsupportedError(f"{self.name} has no custom objects")

    async def read_custom(self, api: Api, object: ObjectType, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """Return rows of a custom object in the order of `ids`, None where there is none."""
        raise UnsupportedError(f"{self.name} has no custom objects")

    async def scan_custom(
        self, api: Api, object: ObjectType, *, after: str | None, size: int, fields: Sequence[str]
    ) -> CustomPage:
        """Return the next rows of a custom object.

        Args:
            after: what the page before named as `next`; None from the start.
        """
        raise UnsupportedError(f"{self.name} has no custom objects")

    def classify(self, response: Response) -> SourceError | None:
        """Tell what went wrong from status, body code and body kind together; None when nothing did."""
        raise UnsupportedError(f"{self.name} does not tell its errors apart")

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
    "Adapter", "Api", "Auth", "Basic", "Changes", "Checked", "Config", "CustomPage", "Delivery", "Feed", "FindKey", "Heard", "KindFacts", "Learned", "Live", "Login", "OAuth", "OAuth1",
    "OrderField", "Outcome", "Page", "Position", "Push", "Related", "Request", "Response", "Scan", "Token", "Watch", "Window", "Write", "answer_or_none", "batches", "code_in", "undocumented",
]  # fmt: skip

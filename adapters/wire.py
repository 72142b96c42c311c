"""What an adapter sends and gets back, whatever HTTP client stands underneath."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import orjson

from model.errors import ProtocolError, RejectedError, SourceError
from model.records import Kind, ObjectType, Row

# One word, or a few of a title such as "Member In Compliance State"; 0x80040217; 1005.
_CODE = re.compile(r"[A-Za-z][\w.:']*( [A-Za-z][\w.:']*){0,5}|0x[0-9a-fA-F]{1,8}|[0-9]{1,5}", re.ASCII)
# ASCII only: str.isdigit() takes "²" for a digit, which float() does not. Dynamics separates thousands.
_NUMBER = re.compile(r"[0-9]+(,[0-9]{3})*(\.[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One call to a system.

    Attributes:
        path: below the source's base address and starting with "/", or a whole URL that the system itself handed out.
        operation: fixed words for metrics and the circuit breaker, such as "contact.read"; never an id.
        cost: what the call takes from named budget windows, such as {"search": 1}; windows marked `every_call` take 1
            by themselves.
        form: the body's fields, URL-encoded, where the system takes those; a call has `json`, `form` or `body`.
        body: sent as it is, its media type in `headers`, where the system takes something else than these.
        safe: may be sent again when its outcome is unclear: true for every read, whatever its HTTP method.
        answers: statuses from 300 on whose body may answer the call all the same, such as a verdict for each record: then
            `classify` returns None for it.
    """

    operation: str
    path: str
    method: str = "GET"
    params: Sequence[tuple[str, str]] = ()
    json: object = None
    form: Sequence[tuple[str, str]] = ()
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    safe: bool = True
    answers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A system's answer as it arrived.

    Attributes:
        headers: names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as parsed JSON.

        Raises:
            ProtocolError: it is something else, such as an HTML maintenance page.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            kind = "HTML" if self.body.lstrip()[:1] == b"<" else "no JSON"
            raise ProtocolError(f"answered {self.status} with {kind}", status=self.status) from error

    def json_or_none(self) -> Any:
        """Return the body as parsed JSON, None when it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    def number(self, header: str) -> float | None:
        """Return what a header counts, None when it is absent or no plain number."""
        said = self.headers.get(header, "")
        return float(said.replace(",", "")) if _NUMBER.fullmatch(said) else None

    @property
    def retry_after(self) -> float | None:
        """Seconds that `Retry-After` names, None without it; a date there counts from the answer's own `Date` (RFC 9110)."""
        seconds = self.number("retry-after")
        if seconds is not None:
            return seconds
        try:
            until, now = (parsedate_to_datetime(self.headers.get(name, "")) for name in ("retry-after", "date"))
            return max((until - now).total_seconds(), 0.0)
        except (ValueError, TypeError):  # no date; or one with a zone and one without
            return None


class Api(Protocol):
    """What a source lends its adapter for one call: the wire, and metadata from the cache."""

    async def send(self, request: Request) -> Response:
        """Send under the source's auth, budget, retry and deadline; return an answer that `classify` found no fault in.

        Raises:
            SourceError: what `classify` made of the answer, or of there being none.
        """

    async def described(self, kind: Kind) -> ObjectType:
        """Return the cached result of the adapter's own `describe(kind)`."""

    def place(self, kind: Kind, row: Row) -> tuple[str, datetime | None, datetime | None]:
        """Return a row's native id, and when it was created and updated, by the source's mapping.

        Raises:
            MappingError: not even these can be read.
        """


async def answer_or_none(api: Api, request: Request) -> Response | None:
    """Return the answer, None where there is no such thing at the system."""
    try:
        return await api.send(request)
    except RejectedError as error:
        if error.status in {404, 410}:
            return None
        raise


def code_in(said: object) -> str:
    """Return a system's own code, "" when what stands in its place is none: other text may quote what was sent, such as an address."""
    text = str(said) if isinstance(said, str | int) and not isinstance(said, bool) else ""
    return text if len(text) <= 100 and _CODE.fullmatch(text) else ""


def undocumented(response: Response) -> SourceError:
    """Return what an answer means whose body no document knows, by its status alone."""
    if response.status in {413, 414, 431}:  # said by what stands in front of a system, which reads no further
        return RejectedError("our request is too long", status=response.status)
    return ProtocolError(f"answered {response.status} without a body that its documents know", status=response.status)

"""A REST system without quirks, from facts alone: what a class states about its paths, this module does.

    class Acme(RestAdapter):
        name = "acme"
        resources = {"contact": Resource(path="/api/people", rows="data", find={"email": "email"})}

Whatever is unusual is an override of the verb it concerns; see docs/add-a-system.md.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from adapters.base import (
    Adapter,
    Api,
    Checked,
    FindKey,
    Learned,
    OrderField,
    Outcome,
    Page,
    Position,
    Related,
    Request,
    Response,
    Scan,
    Write,
    answer_or_none,
    batches,
)
from adapters.ties import whole_groups
from adapters.writing import one_by_one
from mapping.convert import instant
from mapping.paths import pick
from model.errors import (
    DuplicateError,
    ProtocolError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
)
from model.records import Kind, ObjectType, Row

Parameters = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How a list is sorted by one time.

    Attributes:
        path: where the time stands in a row.
        since: parameter for rows from a time on, that time included; without it the order cannot be resumed.
        until: parameter for rows up to a time, that time included; None where the list runs upwards only.
        up, down: parameters that sort upwards and downwards.
    """

    path: str
    since: str
    up: Parameters
    until: str | None = None
    down: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind's place in the API.

    Attributes:
        path: of the list; a record stands below it by its id.
        rows: dotted path to the rows in a list's answer, "" when the answer is the list.
        row: dotted path to the record in a single answer, "" when the answer is the record.
        ids: parameter of the list that takes several ids, separated by commas; None: records are read one by one.
        find: parameter of the list that looks records up by one value of a key.
        of: parent kind → parameter of the list that takes the parent's id.
        order: what the list can be sorted by.
        wraps: the key under which a body that is written holds the record, "" when the body is the record.
        update: method that changes the fields it names and no others.
    """

    path: str
    rows: str = ""
    row: str = ""
    ids: str | None = None
    find: Mapping[FindKey, str] = field(default_factory=dict)
    of: Mapping[Kind, str] = field(default_factory=dict)
    order: Mapping[OrderField, Order] = field(default_factory=dict)
    wraps: str = ""
    update: Literal["PATCH", "PUT"] = "PATCH"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageNumber:
    """Pages counted from `first`; a page with fewer than `size` rows is the last."""

    param: str = "page"
    size_param: str = "per_page"
    size: int = 100
    first: int = 1


class RestAdapter(Adapter):
    """Reads and writes by facts: a list takes new records by POST; a record below it is changed and deleted at its own path.

    Attributes:
        id_path: where a row's id stands.
        check_path, account: a cheap path that proves the credentials, and where its answer names the account.
        time: how times are written in parameters: "iso" or "epoch" seconds.
        limit_headers: window → headers with its limit and what remains of it.
    """

    resources: ClassVar[Mapping[Kind, Resource]]
    page: ClassVar[PageNumber] = PageNumber()
    id_path: ClassVar[str] = "id"
    check_path: ClassVar[str]
    account: ClassVar[str] = "id"
    time: ClassVar[Literal["iso", "epoch"]] = "iso"
    limit_headers: ClassVar[Mapping[str, tuple[str, str]]] = {}

    async def check(self, api: Api) -> Checked:
        found = (await api.send(Request(operation="check", path=self.check_path))).json()
        return Checked(account=str(pick(found, self.account)))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        return ObjectType(name=self.kinds[kind].object, fields={}, currency=self.config.currency)

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / read_batch) lists where the API takes several ids, else one call each."""
        resource = self.resources[kind]
        if resource.ids is None:
            return list(await asyncio.gather(*(self._one(api, kind, id) for id in ids)))
        asked = (
            self._list(api, f"{kind}.read", kind, {resource.ids: ",".join(some)})
            for some in batches(ids, self.kinds[kind].read_batch)
        )
        found = {str(pick(row, self.id_path)): row for rows in await asyncio.gather(*asked) for row in rows}
        return [found.get(id) for id in ids]

    async def _one(self, api: Api, kind: Kind, id: str) -> Row | None:
        resource = self.resources[kind]
        answer = await answer_or_none(api, Request(operation=f"{kind}.read", path=f"{resource.path}/{id}"))
        if answer is None:
            return None
        row: Row = pick(answer.json(), resource.row) if resource.row else answer.json()
        return row

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """One list a parent."""
        parameter = self.resources[kind].of[of]
        found = await asyncio.gather(*(self._list(api, f"{of}.{kind}", kind, {parameter: id}) for id in ids))
        return [Related(rows=rows) for rows in found]

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """One list a value."""
        parameter = self.resources[kind].find[key]
        found = await asyncio.gather(*(self._list(api, f"{kind}.find", kind, {parameter: value}) for value in values))
        return list({str(pick(row, self.id_path)): row for rows in found for row in rows}.values())

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One list a page, more where a group of equal times crosses its end."""
        order = self.resources[kind].order[scan.order]
        if scan.descending and order.until is None:
            raise UnsupportedError(f"{self.name} lists {kind} upwards only")
        if scan.updated_since is not None or scan.updated_before is not None:
            raise UnsupportedError(f"{self.name} lists {kind} without a span of changes")
        parameters = dict(order.down if scan.descending else order.up)
        if scan.after is not None:
            edge = order.until if scan.descending else order.since
            parameters[edge or order.since] = self._time(scan.after.at)

        async def fetch(number: int | None) -> tuple[list[Row], int | None]:
            at = self.page.first if number is None else number
            rows = await self._page(api, f"{kind}.scan", kind, parameters, at)
            return rows, at + 1 if len(rows) == self.page.size else None

        def place(row: Row) -> Position:
            moment = instant(pick(row, order.path))
            if moment is None:
                raise ProtocolError(f"{kind} rows lack {order.path}")
            return Position.of(moment, str(pick(row, self.id_path)))

        return await whole_groups(scan, fetch, place)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """One call a record."""
        return await one_by_one(writes, lambda write: self._written(api, kind, write))

    async def _written(self, api: Api, kind: Kind, write: Write) -> Outcome:
        resource = self.resources[kind]
        if write.verb == "upsert":
            raise UnsupportedError(f"{self.name} has no upsert")
        method = {"create": "POST", "update": resource.update, "delete": "DELETE"}[write.verb]
        path = f"{resource.path}/{write.native_id}" if write.native_id else resource.path
        body = None if write.verb == "delete" else {resource.wraps: write.row} if resource.wraps else write.row
        asked = Request(operation=f"{kind}.{write.verb}", method=method, path=path, json=body, safe=write.repeatable)
        try:
            answer = await api.send(asked)
        except RejectedError as error:
            if write.verb == "delete" and error.status == 404:
                return Outcome(state="UNCHANGED", native_id=write.native_id)
            raise
        if write.verb != "create":
            return Outcome(state="APPLIED", native_id=write.native_id)
        said = answer.json()
        id = pick(pick(said, resource.row) if resource.row else said, self.id_path)
        if id is None:
            raise ProtocolError(f"the answer to a new {kind} has no id at {self.id_path!r}")
        return Outcome(state="APPLIED", native_id=str(id), created=True)

    async def _list(self, api: Api, operation: str, kind: Kind, parameters: Parameters) -> list[Row]:
        """Return all rows, page by page."""
        rows: list[Row] = []
        number = self.page.first
        while True:
            more = await self._page(api, operation, kind, parameters, number)
            rows += more
            if len(more) < self.page.size:
                return rows
            number += 1

    async def _page(self, api: Api, operation: str, kind: Kind, parameters: Parameters, number: int) -> list[Row]:
        resource = self.resources[kind]
        paging = {self.page.param: str(number), self.page.size_param: str(self.page.size)}
        params = list({**parameters, **paging}.items())
        body = (await api.send(Request(operation=operation, path=resource.path, params=params))).json()
        rows: Any = pick(body, resource.rows) if resource.rows else body
        if not isinstance(rows, list):
            raise ProtocolError(f"the list of {kind} has no rows at {resource.rows!r}")
        return rows

    def _time(self, moment: datetime) -> str:
        if self.time == "epoch":
            return str(int(moment.timestamp()))
        return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return (
                None
                if response.status == 204 or response.json_or_none() is not None
                else ProtocolError("answered with something that is not JSON", status=response.status)
            )
        facts: dict[str, Any] = {"status": response.status}
        if response.status == 429:
            return ThrottledError("too many calls", retry_after=response.retry_after, **facts)
        if response.status == 401:
            return TokenExpiredError("the credentials are not accepted", **facts)
        if response.status == 403:
            return SourceForbiddenError("not allowed", **facts)
        if response.status >= 500:
            return UnavailableError("not available", retry_after=response.retry_after, **facts)
        if response.status == 409:
            return DuplicateError("another record has this key", **facts)
        if response.status == 412:
            return StaleVersionError("the record has changed since that version", **facts)
        return RejectedError(f"refused with {response.status}", **facts)

    def learn(self, response: Response) -> Sequence[Learned]:
        learned = []
        for window, (limit, remaining) in self.limit_headers.items():
            total, left = response.number(limit.lower()), response.number(remaining.lower())
            if total is not None and left is not None:
                learned.append(Learned(window=window, limit=total, remaining=left))
        return learned

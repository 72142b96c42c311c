"""Writing to Salesforce: collections of 200 with an outcome for each record, in order; conditional updates one by one.

From the REST API guide: sObject collections, conditional request headers, and the reference of OpportunityContactRole. An update with a
version sends `If-Unmodified-Since`, a weak comparison: the vendor compares whole seconds of LastModifiedDate, so a second change
within the same second, or one that automation made, goes unseen. DELETE heeds no condition, so there the version is read before.
A deal is made together with its roles, in a graph. A value that is of no type that its field takes refuses the whole collection, which is halved until the culprit stands alone.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from email.utils import format_datetime
from typing import Any

from adapters.base import Api, Outcome, Request, Response, Write, batches, code_in
from adapters.writing import bisected, failed
from mapping.convert import instant
from model.errors import (
    DuplicateError,
    ProtocolError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    StaleVersionError,
    UnavailableError,
)
from model.records import Kind, Row

_GRAPHS = 14  # in one request: after more failures than that the vendor does not begin the others
_COLLECTION, _ID = 200, re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")
ROLES = "OpportunityContactRole"  # what a deal is tied to a contact by: one row for each (deal, contact)
_DUPLICATES = frozenset({"DUPLICATE_VALUE", "DUPLICATES_DETECTED", "DUPLICATE_EXTERNAL_ID"})
_GONE = frozenset({"ENTITY_IS_DELETED", "NOT_FOUND"})
_BUSY = frozenset({"UNABLE_TO_LOCK_ROW", "QUERY_TIMEOUT", "SERVER_UNAVAILABLE"})
_FOREIGN = "INVALID_CROSS_REFERENCE_KEY"  # said of an id that nothing has: the record's own, or one it refers to
Read = Callable[[Api, Kind, Sequence[str], Sequence[str]], Awaitable[Sequence[Row | None]]]
Query = Callable[[Api, str, str], Awaitable[list[Row]]]


class Writer:
    """
    Args:
        root: what paths begin with.
        names: kind → Salesforce's name for it.
        currency: of an org that has only one.
        today: the day that a deal is to close on where none is said, since the vendor makes none without.
        read, query: as the adapter does.
    """

    def __init__(
        self, root: str, names: Mapping[Kind, str], currency: str, read: Read, query: Query, today: Callable[[], date]
    ) -> None:
        self._root, self._names, self._currency, self._read, self._query = root, names, currency, read, query
        self._today = today

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """ceil(rows / 200) calls for each verb, one for each update with a version; deals with contacts ceil(rows / 14), or two
        more where they were there before."""
        # Ids stand in addresses and queries: what is not shaped like one is no record, and is not sent.
        outcomes = {at: _gone(each) for at, each in enumerate(writes) if each.native_id and not _ID.fullmatch(each.native_id)}

        async def part(call: Callable[[Api, Kind, Sequence[Write]], Awaitable[list[Outcome]]], places: Sequence[int]) -> None:
            asked = [writes[at] for at in places]
            outcomes.update(zip(places, await bisected(asked, lambda some: call(api, kind, some)), strict=True))

        def those(wanted: Callable[[Write], bool], size: int = _COLLECTION) -> Any:
            return batches([at for at, each in enumerate(writes) if at not in outcomes and wanted(each)], size)

        await asyncio.gather(
            *(part(self._create, some) for some in those(lambda each: each.verb == "create" and not each.links.get("contact"))),
            *(
                part(self._create_with_roles, some)
                for some in those(lambda each: each.verb == "create" and bool(each.links.get("contact")), _GRAPHS)
            ),
            *(part(self._update, some) for some in those(lambda each: each.verb == "update" and each.if_version is None)),
            *(
                part(self._update_unchanged, some)
                for some in those(lambda each: each.verb == "update" and each.if_version is not None, 1)
            ),
            *(part(self._delete, some) for some in those(lambda each: each.verb == "delete")),
        )
        return await self._tied(api, kind, writes, [outcomes[at] for at in range(len(writes))])

    async def _create(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        return await self._collection(api, kind, "POST", writes)

    async def _create_with_roles(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """One graph for each deal: it is made with its roles or not at all."""
        records = await self._records(api, kind, writes)
        graphs = [
            {"graphId": str(at), "compositeRequest": self._graph(kind, each, row)}
            for at, (each, row) in enumerate(zip(writes, records, strict=True))
            if not isinstance(row, Outcome)
        ]
        outcomes = {at: row for at, row in enumerate(records) if isinstance(row, Outcome)}
        if graphs:
            path = f"{self._root}/composite/graph"
            request = Request(operation=f"{kind}.create", method="POST", path=path, json={"graphs": graphs}, safe=False)
            for each in (await api.send(request)).json()["graphs"]:
                outcomes[int(each["graphId"])] = _of_graph(each)
        silent = failed(ProtocolError("the answer does not name the record"))
        return [outcomes.get(at, silent) for at in range(len(writes))]

    def _graph(self, kind: Kind, write: Write, record: Row) -> list[Row]:
        """Return the deal, and a role for each contact, the first one primary."""
        values = {name: value for name, value in record.items() if name != "attributes"}
        roles = [
            {"OpportunityId": "@{deal.id}", "ContactId": contact, "IsPrimary": nth == 0}
            for nth, contact in enumerate(dict.fromkeys(write.links["contact"]))
        ]
        sent = [("deal", self._names[kind], values), *((f"role{nth}", ROLES, role) for nth, role in enumerate(roles))]
        return [
            {"method": "POST", "url": f"{self._root}/sobjects/{name}", "referenceId": reference, "body": body}
            for reference, name, body in sent
        ]

    async def _update(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """Rows that only tie records have nothing to update."""
        changing = [each for each in writes if each.row]
        found = iter(await self._collection(api, kind, "PATCH", changing) if changing else ())
        return [
            next(found) if each.row else Outcome(state="APPLIED" if each.links else "UNCHANGED", native_id=each.native_id)
            for each in writes
        ]

    async def _update_unchanged(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        [write] = writes
        at = _moment(write.if_version)
        if at is None:
            return [_stale()]
        if not write.row:
            [stale] = await self._changed_since(api, kind, writes)
            return [stale or Outcome(state="APPLIED" if write.links else "UNCHANGED", native_id=write.native_id)]
        [record] = await self._records(api, kind, writes)
        if isinstance(record, Outcome):
            return [record]
        body = {name: value for name, value in record.items() if name not in {"attributes", "Id"}}
        headers = {"If-Unmodified-Since": format_datetime(at, usegmt=True)}
        path = f"{self._root}/sobjects/{self._names[kind]}/{write.native_id}"
        await api.send(Request(operation=f"{kind}.update", method="PATCH", path=path, json=body, headers=headers, safe=False))
        return [Outcome(state="APPLIED", native_id=write.native_id)]

    async def _delete(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        stale = await self._changed_since(api, kind, writes)
        going = [each for each, old in zip(writes, stale, strict=True) if old is None]
        if not going:
            return [each for each in stale if each is not None]
        params = [("ids", ",".join(each.native_id or "" for each in going)), ("allOrNone", "false")]
        answer = await self._sent(api, f"{kind}.delete", "DELETE", going, params=params)
        found = iter([_outcome(each, result, ()) for each, result in zip(going, _results(answer, going), strict=True)])
        return [next(found) if old is None else old for old in stale]

    async def _changed_since(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome | None]:
        """Return the outcome of those that are no longer what their version says; None where it holds or none is named."""
        ids = [each.native_id or "" for each in writes if each.if_version is not None]
        rows = dict(zip(ids, await self._read(api, kind, ids, ["SystemModstamp"]), strict=True)) if ids else {}
        found: list[Outcome | None] = []
        for each in writes:
            row = rows.get(each.native_id or "")
            if each.if_version is None or (row is not None and instant(row["SystemModstamp"]) == _moment(each.if_version)):
                found.append(None)
            else:
                found.append(_gone(each) if row is None else _stale())
        return found

    async def _collection(self, api: Api, kind: Kind, method: str, writes: Sequence[Write]) -> list[Outcome]:
        records = await self._records(api, kind, writes)
        good = [each for each in records if not isinstance(each, Outcome)]
        sent = [each for each, record in zip(writes, records, strict=True) if not isinstance(record, Outcome)]
        operation = f"{kind}.{'create' if method == 'POST' else 'update'}"
        answer = await self._sent(api, operation, method, sent, json={"allOrNone": False, "records": good}) if good else None
        references = [name for name, field in (await api.described(kind)).fields.items() if field.type == "REFERENCE"]
        found = iter(
            [_outcome(each, result, references) for each, result in zip(sent, _results(answer, sent), strict=True)]
            if answer
            else ()
        )
        return [record if isinstance(record, Outcome) else next(found) for record in records]

    async def _records(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Row | Outcome]:
        """Return what goes over the wire. An org with one currency has no field for it, and takes amounts in no other one."""
        one_currency = "CurrencyIsoCode" not in (await api.described(kind)).fields
        found: list[Row | Outcome] = []
        for each in writes:
            row = {name: value for name, value in each.row.items() if not (one_currency and name == "CurrencyIsoCode")}
            if one_currency and each.row.get("CurrencyIsoCode", self._currency) != self._currency:
                error = RejectedError(f"the org keeps amounts in {self._currency} only")
                found.append(Outcome(state="REJECTED", error=error, fields=("CurrencyIsoCode",)))
                continue
            if kind == "deal" and each.verb == "create":
                row.setdefault("CloseDate", self._today().isoformat())
            found.append({"attributes": {"type": self._names[kind]}, **({"Id": each.native_id} if each.native_id else {}), **row})
        return found

    async def _sent(self, api: Api, operation: str, method: str, writes: Sequence[Write], **more: Any) -> Response:
        safe = all(each.repeatable for each in writes)
        return await api.send(
            Request(operation=operation, method=method, path=f"{self._root}/composite/sobjects", safe=safe, **more)
        )

    # ---- roles ----

    async def _tied(self, api: Api, kind: Kind, writes: Sequence[Write], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Give deals that were there before their contacts. One that is not tied is REJECTED, and says if it was changed all the same."""
        after = list(outcomes)
        ours = [
            at
            for at, each in enumerate(writes)
            if kind == "deal" and each.verb == "update" and each.links.get("contact") and outcomes[at].state == "APPLIED"
        ]
        for some in batches(ours, _COLLECTION):
            faults = await self._roles(api, {str(writes[at].native_id): writes[at].links["contact"] for at in some})
            for at in some:
                if (error := faults.get(str(writes[at].native_id))) is not None:
                    after[at] = replace(after[at], state="REJECTED", error=untied(error, written=bool(writes[at].row)))
        return after

    async def _roles(self, api: Api, wanted: Mapping[str, Sequence[str]]) -> dict[str, SourceError]:
        """Make the roles that are not there yet; return what went wrong by deal. The first contact is primary where no other is."""
        listed = ", ".join(f"'{id}'" for id in wanted)
        soql = f"SELECT OpportunityId, ContactId, IsPrimary FROM {ROLES} WHERE OpportunityId IN ({listed})"
        try:
            there = await self._query(api, "deal.roles", soql)
        except SourceError as error:
            return dict.fromkeys(wanted, error)
        tied = {(each["OpportunityId"], each["ContactId"]) for each in there}
        led = {each["OpportunityId"] for each in there if each["IsPrimary"]}
        records = [
            {
                "attributes": {"type": ROLES},
                "OpportunityId": deal,
                "ContactId": contact,
                "IsPrimary": nth == 0 and deal not in led,
            }
            for deal, contacts in wanted.items()
            for nth, contact in enumerate(contacts)
            if (deal, contact) not in tied
        ]
        faults: dict[str, SourceError] = {}
        for some in batches(records, _COLLECTION):
            request = Request(
                operation="deal.contact.tie", method="POST", path=f"{self._root}/composite/sobjects", safe=False,
                json={"allOrNone": False, "records": list(some)},
            )  # fmt: skip
            try:
                results = _results(await api.send(request), some)
            except SourceError as error:
                faults |= {str(each["OpportunityId"]): error for each in some}
                continue
            for each, result in zip(some, results, strict=True):
                if not result["success"]:
                    faults[str(each["OpportunityId"])] = refusal(_code(result), status=400)
        return faults


def untied(error: SourceError, *, written: bool) -> SourceError:
    """Return why a record is not tied. Where it will not do later either, the message says what was done all the same."""
    if not isinstance(error, RejectedError):
        return error  # to be asked again: a tie that is there already is not made twice
    said = f"written, but not tied: {error.upstream_code}" if written else f"not tied: {error.upstream_code}"
    return RejectedError(said, status=error.status, upstream_code=error.upstream_code)


def refusal(code: str, *, status: int) -> SourceError:
    """Return what one of Salesforce's codes says of a request or a record; its messages quote the values that were sent."""
    facts: dict[str, Any] = {"status": status, "upstream_code": code or None}
    if code in _DUPLICATES:
        return DuplicateError("another record has this key", **facts)
    if code in _GONE:
        return RejectedError(f"refused: {code}", status=404, upstream_code=code)
    if code in _BUSY:
        return UnavailableError("not available", **facts)
    if code.startswith("INSUFFICIENT_ACCESS"):
        return SourceForbiddenError(f"not allowed: {code}", **facts)
    return RejectedError(f"refused: {code}" if code else f"refused with {status}", **facts)


def _results(answer: Response, asked: Sequence[object]) -> list[Row]:
    """Return one result for each record, in the order they were sent (as the documents promise)."""
    results: list[Row] = answer.json()
    if not isinstance(results, list) or len(results) != len(asked):
        raise ProtocolError("the answer does not name each record", status=answer.status)
    return results


def _outcome(write: Write, result: Row, references: Sequence[str]) -> Outcome:
    if result["success"]:
        return Outcome(state="APPLIED", native_id=result.get("id") or write.native_id)
    code = _code(result)
    gone = code in _GONE or (code == _FOREIGN and not any(write.row.get(name) for name in references))
    if gone and write.verb == "delete":
        return _gone(write)
    error = (
        RejectedError(f"refused: {code}", status=404, upstream_code=code)
        if gone and write.verb != "create"
        else refusal(code, status=400)
    )
    fields = tuple(str(name) for each in result["errors"] for name in each.get("fields") or ())
    return Outcome(state="CONFLICT" if isinstance(error, DuplicateError) else "REJECTED", error=error, fields=fields)


def _of_graph(graph: Row) -> Outcome:
    """Return what became of a deal that was made with its roles: the first node that failed for a reason of its own tells why not."""
    nodes = graph["graphResponse"]["compositeResponse"]
    if graph["isSuccessful"]:
        return Outcome(state="APPLIED", native_id=next(node["body"]["id"] for node in nodes if node["referenceId"] == "deal"))
    refused = [(node["referenceId"], said) for node in nodes if isinstance(node["body"], list) for said in node["body"]]
    nobody: tuple[str, Row] = ("", {})
    reference, culprit = next(((of, said) for of, said in refused if said.get("errorCode") != "PROCESSING_HALTED"), nobody)
    error = refusal(code_in(culprit.get("errorCode")) or "UNKNOWN", status=400)
    fields = tuple(str(name) for name in culprit.get("fields") or ()) if reference == "deal" else ()
    return Outcome(state="CONFLICT" if isinstance(error, DuplicateError) else "REJECTED", error=error, fields=fields)


def _code(result: Row) -> str:
    said = next((each.get("statusCode") or each.get("errorCode") for each in result.get("errors") or ()), None)
    return code_in(said) or "UNKNOWN"


def _gone(write: Write) -> Outcome:
    if write.verb == "delete":
        return Outcome(state="UNCHANGED", native_id=write.native_id)
    return failed(RejectedError("the record is gone", status=404))


def _stale() -> Outcome:
    return failed(StaleVersionError("the record changed since the version that was named"))


def _moment(version: str | None) -> datetime | None:
    """Return the time that a `Record.version` tells, None when it tells none."""
    try:
        at = datetime.fromisoformat(version or "")
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else None

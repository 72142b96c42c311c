"""How Dataverse tells what changed: change tracking behind delta links, and webhooks of its event pipeline.

Facts from "Use change tracking to synchronize data with external systems", "Register a webhook", "Use webhooks to create external
handlers" and the SDK's table pages. A delta link comes only after all rows were paged through, so a feed begins by telling everything. It
takes no `$expand`: what a lookup leads to is worked out where it is an id or a currency, else the record is read by its id.

A webhook is proved by a key of ours, `?code=`, and by nothing else; only ids, times and the organization of a body are used. An
administrator may register one in place of `watch`, with the Plug-in Registration tool: "Register New Web Hook" with our address,
authentication "WebhookKey" and our secret as value; then a step for each of Create, Update and Delete of contact, account, lead and
opportunity, and Merge of the first three: "PostOperation", "Asynchronous". Most deliveries that fail are not repeated: the feed tells all.

Doubts: the Web API's code of a token that is too old (any refusal of a link that it gave counts as that); that annotations come with
tracked rows (where they do not, the record is read); that the context names the organization by the id that `WhoAmI` has.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

from adapters.base import Api, Request
from adapters.changes import Change, Changes, Delivery, Feed, Heard, Hint, Push, Watch, digest_of, instant, matches
from adapters.dynamics_metadata import COST, CURRENCY, HEADERS
from adapters.dynamics_rows import ETAG, FORMATTED, View, is_guid, neat, quoted, view
from mapping.convert import instant as moment_of
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import FieldMeta, Kind, Row

# One call a pass and kind: each minute, that is a seventh of the 40,000 requests a day that a licence has.
FEED = Feed(how="delta", overlap=0.0, deletes=True, merges=True, interval=60.0, longest=300.0, life=7 * 86_400.0)
UNMERGED = replace(FEED, merges=False)  # opportunities are not merged
PUSH = Push(kinds=frozenset({"contact", "account", "lead", "deal"}), merges=True, secret="ours", accounts=True, delay=30.0)
PAGE = 5000
_MERGES = ("merged", "_masterid_value")
_FORGOTTEN = frozenset({400, 404, 410})
_FORMAT, _LOGICAL = "OData.Community.Display.V1.FormattedValue", "Microsoft.Dynamics.CRM.lookuplogicalname"
# What an expanded lookup would bring that its value tells as well: path → lookup column, table.
_LOOKUPS: Mapping[str, tuple[str, str]] = {
    "parentcustomerid_account.accountid": ("_parentcustomerid_value", "account"), "parentcustomerid_contact.contactid": ("_parentcustomerid_value", "contact"),
    "customerid_account.accountid": ("_customerid_value", "account"), "customerid_contact.contactid": ("_customerid_value", "contact"),
}  # fmt: skip
_MONEY = f"{CURRENCY}.isocurrencycode"


class _Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Attributes:
        select: the columns that `link` was begun with, which it keeps.
        link: the next page, or the delta link; "" at the start of a listing.
        through: the listing is, and `link` tells what changed since.
        old: a delta link with other columns, to be followed to its end once the listing is through, so that no deletion is lost.
        following: the delta link to go on with after `old`.
    """

    select: str = ""
    link: str = ""
    through: bool = False
    old: str = ""
    following: str = ""


class Tracking:
    """
    Args:
        table: the path of the entity set, with the service root in front.
        id: the primary key's column.
        merges: rows of the table tell whether they were merged away.
        neaten: lists of the columns that hold several options.
    """

    def __init__(
        self, api: Api, kind: Kind, *, root: str, table: str, id: str, merges: bool, neaten: Callable[[list[Row]], Awaitable[list[Row]]]
    ) -> None:  # fmt: skip
        self._api, self._kind, self._root, self._table = api, kind, root, table
        self._id, self._merges, self._neaten = id, merges, neaten

    async def changes(self, cursor: str | None, fields: Sequence[str]) -> Changes:
        """Return one page: of the listing, or of what changed since. One call for each 5,000 rows, at least one."""
        shape = view(fields, self._id)
        looked = [_LOOKUPS[path][0] for path in fields if path in _LOOKUPS] + [f"_{CURRENCY}_value"] * (_MONEY in fields)
        columns = dict.fromkeys([*shape.select, *looked, "createdon", "modifiedon", *(_MERGES if self._merges else ())])
        select = ",".join(columns)
        place = msgspec.json.decode(cursor, type=_Place) if cursor is not None else _Place(select=select)
        if place.select != select:
            place = _Place(select=select, old=place.old or (place.link if place.through else ""))
        notes = [*([_FORMAT] if shape.labels else []), *([_LOGICAL] if looked else [])]
        body = await self._page(place, notes)
        link, delta = body.get("@odata.nextLink"), body.get("@odata.deltaLink")
        if (link or delta) is None:
            raise ProtocolError(f"dynamics: tracked {self._kind} records without a link to go on with")
        following = self._root + str(link or delta).partition(self._root)[2]
        if link is not None and following == place.link:
            raise ProtocolError(f"dynamics: a page of changed {self._kind} records does not go on")
        # Rows of a link with other columns lack some of those that are asked for now.
        whole = not place.following and not any(_expands(path) and path not in _LOOKUPS and path != _MONEY for path in fields)
        told = await self._told(body["value"], shape, fields, whole=whole)
        if link is not None:
            return Changes(changes=told, cursor=_encoded(msgspec.structs.replace(place, link=following)), more=True)
        if place.following:
            return Changes(changes=told, cursor=_encoded(_Place(select=select, link=place.following, through=True)))
        if place.old:
            then = _Place(select=select, link=place.old, through=True, old=place.old, following=following)
            return Changes(changes=told, cursor=_encoded(then), more=True)
        return Changes(changes=told, cursor=_encoded(_Place(select=select, link=following, through=True)))

    async def _page(self, place: _Place, notes: Sequence[str]) -> Any:
        prefer = [
            "odata.track-changes",
            f"odata.maxpagesize={PAGE}",
            *([f'odata.include-annotations="{",".join(notes)}"'] if notes else []),
        ]
        request = Request(
            operation=f"{self._kind}.changes", path=place.link or self._table, params=() if place.link else [("$select", place.select)],
            headers={**HEADERS, "Prefer": ",".join(prefer)}, cost=COST,
        )  # fmt: skip
        try:
            return (await self._api.send(request)).json()
        except RejectedError as error:
            if place.link and error.status in _FORGOTTEN:
                raise CursorExpiredError(
                    "the delta link is not good any more", status=error.status, upstream_code=error.upstream_code
                ) from error
            raise

    async def _told(self, values: Sequence[Row], shape: View, fields: Sequence[str], *, whole: bool) -> list[Change]:
        told, there = [], []
        for row in values:
            if str(row.get("@odata.context", "")).endswith("/$deletedEntity"):
                told.append(Change(kind=self._kind, native_id=str(row["id"]).lower(), op="DELETED"))
            else:
                there.append(neat(row))
        currencies = await self._currencies() if whole and _MONEY in fields else {}
        for row in await self._neaten(there):
            id, at = str(row[self._id]), moment_of(row["modifiedon"])
            if self._merges and row.get("merged"):
                into = row.get("_masterid_value")
                told.append(Change(kind=self._kind, native_id=id, op="MERGED" if into else "DELETED", at=at, into=into))
            else:
                full = whole and _filled(row, shape, fields, currencies)
                told.append(Change(kind=self._kind, native_id=id, at=at, row=row if full else None))
        return told

    async def _currencies(self) -> Mapping[str, str]:
        meta: FieldMeta | None = (await self._api.described(self._kind)).fields.get(CURRENCY)
        return meta.options if meta is not None else {}


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


def _expands(path: str) -> bool:
    return "." in path and not path.startswith((FORMATTED, ETAG))


def _filled(row: Row, shape: View, fields: Sequence[str], currencies: Mapping[str, str]) -> bool:
    """Put what lookups lead to into a row; tell whether all of it could be told."""
    if shape.labels:
        labels = row.get(FORMATTED[:-1], {})
        wanted = [path.removeprefix(FORMATTED) for path in fields if path.startswith(FORMATTED)]
        if any(row.get(column) is not None and column not in labels for column in wanted):
            return False
    for path in fields:
        navigation, _, column = path.partition(".")
        if path in _LOOKUPS:
            lookup, table = _LOOKUPS[path]
            value, said = row[lookup], row.get(f"{lookup}@{_LOGICAL}")
            if value is not None and said is None:
                return False
            row[navigation] = {column: value} if value is not None and said == table else None
        elif path == _MONEY:
            value = row[f"_{CURRENCY}_value"]
            if value is not None and value not in currencies:
                return False
            row[CURRENCY] = {column: currencies[value]} if value is not None else None
    return True


# ---- webhooks ----

_TABLES: Mapping[str, Kind] = {"contact": "contact", "account": "account", "lead": "lead", "opportunity": "deal"}
_OPS = {
    "Create": "CHANGED", "Update": "CHANGED", "Assign": "CHANGED", "SetState": "CHANGED", "SetStateDynamicEntity": "CHANGED", "Win": "CHANGED", "Lose": "CHANGED",
    "Delete": "DELETED", "Merge": "MERGED",
}  # fmt: skip
_DATE = re.compile(r"/Date\((-?\d{1,15})([+-]\d{4})?\)/", re.ASCII)  # milliseconds of UTC; the offset is that of whoever made it
_MESSAGES = ("Create", "Update", "Delete", "Merge")
_CONTRACT, _KEY, _JSON, _ASYNC, _AFTER = 8, 4, 2, 1, 40  # options: webhook, its authentication, a body of JSON, mode, stage


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a webhook by its key, and read which record it is about."""
    said = delivery.query.get("code", "")
    if not said or not matches(said, *secrets):
        raise SignatureError("dynamics: a webhook without the right key")
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("dynamics: a webhook is no JSON") from error
    if not isinstance(body, dict):
        raise ProtocolError("dynamics: a webhook is no object")
    account = body.get("OrganizationId")
    account = str(account).lower() if is_guid(account) else None
    kind, op = _TABLES.get(str(body.get("PrimaryEntityName"))), _OPS.get(str(body.get("MessageName")))
    if kind is None or op is None:
        return Heard(account=account)
    id = body.get("PrimaryEntityId")
    if not is_guid(id):
        raise ProtocolError("dynamics: a webhook without the id of its record")
    change = _change(kind, op, str(id).lower(), body)
    parts = (
        body.get(name) for name in ("CorrelationId", "RequestId", "OperationId", "MessageName", "OperationCreatedOn", "Depth")
    )
    return Heard(account=account, hints=[Hint(id=digest_of(kind, change.native_id, *parts), change=change)])


def _change(kind: Kind, op: Any, id: str, body: Row) -> Change:
    """Return what happened. Parameters are left out of bodies that are too large, and a merge then tells only who lives on."""
    given = _pairs(body.get("InputParameters"))
    target = given.get("Target")
    attributes = _pairs(target.get("Attributes")) if isinstance(target, dict) else {}
    at = _moment(attributes.get("modifiedon")) or _moment(body.get("OperationCreatedOn"))
    if op == "MERGED":
        loser, winner = given.get("SubordinateId"), target.get("Id") if isinstance(target, dict) else None
        if not is_guid(loser) or not is_guid(winner):
            return Change(kind=kind, native_id=id, at=at)
        return Change(kind=kind, native_id=str(loser).lower(), op="MERGED", at=at, into=str(winner).lower())
    return Change(kind=kind, native_id=id, op=op, at=at)


def _pairs(said: Any) -> dict[str, Any]:
    rows = said if isinstance(said, list) else []
    return {str(each.get("key")): each.get("value") for each in rows if isinstance(each, dict)}


def _moment(said: Any) -> datetime | None:
    found = _DATE.fullmatch(said) if isinstance(said, str) else None
    try:
        return instant(int(found[1])).astimezone(UTC) if found is not None else None
    except (ValueError, OverflowError, OSError):
        return None


class Registration:
    """The webhook of one address: a service endpoint, and a step of it for each message and table."""

    def __init__(self, api: Api, root: str) -> None:
        self._api, self._root = api, root

    async def watch(self, url: str, secret: str) -> list[Watch]:
        """Four calls when all is well; one more for each step that is missing or switched off, and one to see them then.

        The key cannot be read, so the endpoint's name tells which one it has, by its digest.
        """
        name = f"customer360 {hashlib.sha256(secret.encode()).hexdigest()[:16]}"
        said = {"name": name, "url": url, "contract": _CONTRACT, "messageformat": _JSON, "authtype": _KEY, "authvalue": secret}
        found = await self._endpoints(url)
        if not found:
            await self._sent("POST", "serviceendpoints", said)
            found = await self._endpoints(url)
        if not found:
            raise ProtocolError("dynamics: a service endpoint that was made is not there")
        mine, *doubled = found
        for each in doubled:
            await self._end(each["serviceendpointid"])
        if mine["name"] != name:
            await self._sent("PATCH", f"serviceendpoints({mine['serviceendpointid']})", said)
        endpoint = mine["serviceendpointid"]
        there, wanted = await asyncio.gather(self._steps(endpoint), self._wanted())
        if any([await self._changed(endpoint, each, there) for each in wanted]):
            there = await self._steps(endpoint)
        return [Watch(native_id=id) for id in (endpoint, *(each["sdkmessageprocessingstepid"] for each in there))]

    async def unwatch(self, url: str) -> int:
        found = await self._endpoints(url)
        for each in found:
            await self._end(each["serviceendpointid"])
        return len(found)

    async def _endpoints(self, url: str) -> list[Row]:
        """Return the webhooks to an address, always in the same order."""
        condition = f"contract eq {_CONTRACT} and url eq {quoted(url)}"
        rows = await self._rows("serviceendpoints", "serviceendpointid,name,url", condition)
        return sorted((row for row in rows if row["url"] == url), key=lambda row: str(row["serviceendpointid"]))

    async def _steps(self, endpoint: str) -> list[Row]:
        columns = "sdkmessageprocessingstepid,_sdkmessageid_value,_sdkmessagefilterid_value,statecode"
        return await self._rows("sdkmessageprocessingsteps", columns, f"_eventhandler_value eq {endpoint}")

    async def _wanted(self) -> list[Row]:
        """Return the filters that stand for our messages and tables: two calls."""
        names = " or ".join(f"name eq {quoted(each)}" for each in _MESSAGES)
        messages = {row["sdkmessageid"]: row["name"] for row in await self._rows("sdkmessages", "sdkmessageid,name", names)}
        tables = " or ".join(f"primaryobjecttypecode eq {quoted(each)}" for each in _TABLES)
        ids = " or ".join(f"_sdkmessageid_value eq {each}" for each in messages)
        if not ids:
            raise ProtocolError("dynamics: none of the messages is known")
        rows = await self._rows(
            "sdkmessagefilters", "sdkmessagefilterid,primaryobjecttypecode,_sdkmessageid_value", f"({tables}) and ({ids})"
        )
        return [
            {**row, "message": messages[row["_sdkmessageid_value"]]} for row in rows if row["primaryobjecttypecode"] in _TABLES
        ]

    async def _changed(self, endpoint: str, wanted: Row, there: Sequence[Row]) -> bool:
        """Make the step of a message and table, or switch it on; tell whether that was necessary."""
        found = next((each for each in there if each["_sdkmessagefilterid_value"] == wanted["sdkmessagefilterid"]), None)
        if found is None:
            await self._sent("POST", "sdkmessageprocessingsteps", {
                "name": f"customer360: {wanted['message']} of {wanted['primaryobjecttypecode']}", "mode": _ASYNC, "stage": _AFTER, "rank": 1, "supporteddeployment": 0,
                "asyncautodelete": True, "eventhandler_serviceendpoint@odata.bind": f"/serviceendpoints({endpoint})",
                "sdkmessageid@odata.bind": f"/sdkmessages({wanted['_sdkmessageid_value']})",
                "sdkmessagefilterid@odata.bind": f"/sdkmessagefilters({wanted['sdkmessagefilterid']})",
            })  # fmt: skip
        elif found["statecode"] != 0:
            await self._sent(
                "PATCH", f"sdkmessageprocessingsteps({found['sdkmessageprocessingstepid']})", {"statecode": 0, "statuscode": 1}
            )
        return found is None or found["statecode"] != 0

    async def _end(self, endpoint: str) -> None:
        """Delete the steps first: an endpoint that has some cannot be deleted."""
        for each in await self._steps(endpoint):
            await self._sent("DELETE", f"sdkmessageprocessingsteps({each['sdkmessageprocessingstepid']})", None)
        await self._sent("DELETE", f"serviceendpoints({endpoint})", None)

    async def _rows(self, table: str, columns: str, condition: str) -> list[Row]:
        params = [("$select", columns), ("$filter", condition)]
        request = Request(operation="watch.list", path=f"{self._root}/{table}", params=params, headers=HEADERS, cost=COST)
        rows: list[Row] = (await self._api.send(request)).json()["value"]
        return rows

    async def _sent(self, method: str, path: str, said: object) -> None:
        headers = {**HEADERS, **({"If-Match": "*"} if method == "PATCH" else {})}
        operation = "watch.delete" if method == "DELETE" else "watch.write"
        await self._api.send(
            Request(
                operation=operation,
                method=method,
                path=f"{self._root}/{path}",
                json=said,
                headers=headers,
                cost=COST,
                safe=method != "POST",
            )
        )

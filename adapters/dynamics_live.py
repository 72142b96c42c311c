"""How Dataverse tells what changed: change tracking by a delta link for each table, and webhooks.

Facts from Microsoft's pages "Use change tracking to synchronize data with external systems", "Use webhooks to create external handlers",
"Register a webhook", "Merge" and "Web service error codes". Tracking takes no $filter, $orderby and no $expand: what a lookup
leads to is worked out from the lookup itself where that is enough, else a change brings no row and is read by its id.

Doubts: that annotations come with tracked changes (a row that lacks one that is needed is not brought); which messages a merge sends
besides Merge (an Update that says "merged" is understood as well); that closing a deal sends an Update. `OrganizationId` stands in no
documented body, so deliveries name no account.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import orjson

from adapters import dynamics_metadata as metadata
from adapters.base import Api, Request
from adapters.changes import Change, Changes, Delivery, Feed, Heard, Hint, Push, digest_of, instant, matches
from adapters.dynamics_rows import FORMATTED, View, is_guid, neat, view
from mapping.convert import instant as told_time
from model.errors import CursorExpiredError, ProtocolError, RejectedError, SignatureError
from model.records import Kind, Row

# A link is exact: it leaves nothing out that is committed late. It is good for 7 days unless the environment says otherwise.
FEED = Feed(how="delta", overlap=0.0, deletes=True, merges=True, interval=30.0, longest=300.0, life=7 * 86_400.0)
PUSH = Push(kinds=frozenset({"contact", "account", "lead", "deal"}), merges=True, delay=60.0)
PAGE = 5000
# A link that was given out and is refused will be refused for ever: too old (0x80044352, ExpiredVersionStamp), or of a column that is gone.
_EXPIRED = frozenset({400, 404, 410})
_LABELS, _TABLE = "OData.Community.Display.V1.FormattedValue", "Microsoft.Dynamics.CRM.lookuplogicalname"
_MERGED = ("merged", "_masterid_value")
_TIMES = ("createdon", "modifiedon")
_KINDS: Mapping[str, Kind] = {"contact": "contact", "account": "account", "lead": "lead", "opportunity": "deal"}
_DATE = re.compile(r"/Date\((-?\d{1,14})([+-]\d{4})?\)/", re.ASCII)
_SEVERAL = frozenset({"customerid", "parentcustomerid"})  # lookups that lead to one of several tables, as "customerid_account"
_NOBODY = "00000000-0000-0000-0000-000000000000"


class _Place(msgspec.Struct, frozen=True):
    """
    Attributes:
        link: of the next page or of the next pass, below the source's address, exactly as the system spelled it.
    """

    link: str


async def changes(
    api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, path: str, id: str, merges: bool
) -> Changes:
    """One call for each 5,000 rows that changed, at least one. Without a cursor all rows are told: tracking begins with them.

    Args:
        path: of the table, such as "/api/data/v9.2/contacts".
        id: its column of ids.
    """
    wanted = view([*fields, *_TIMES], id)
    link = msgspec.json.decode(cursor, type=_Place).link if cursor is not None else None
    columns = dict.fromkeys(
        [*wanted.select, *(column for each in wanted.expand or () if (column := _lookup(each))), *(_MERGED if merges else ())]
    )
    prefer = ("odata.track-changes", f"odata.maxpagesize={PAGE}", f'odata.include-annotations="{_LABELS},{_TABLE}"')
    request = Request(
        operation=f"{kind}.changes", path=link or path, params=() if link else [("$select", ",".join(columns))],
        headers={**metadata.HEADERS, "Prefer": ",".join(prefer)}, cost=metadata.COST,
    )  # fmt: skip
    try:
        body = (await api.send(request)).json()
    except RejectedError as error:
        if cursor is not None and error.status in _EXPIRED:
            raise CursorExpiredError(
                "the delta link is not good any more", status=error.status, upstream_code=error.upstream_code
            ) from error
        raise
    page, delta = body.get("@odata.nextLink"), body.get("@odata.deltaLink")
    if not (page or delta):
        raise ProtocolError(f"dynamics: changes of {kind} without a link to go on with")
    root = path.rpartition("/")[0]
    following = root + (page or delta).partition(root)[2]
    if page and following == link:
        raise ProtocolError(f"dynamics: a page of changed {kind} records does not go on")
    currencies: Mapping[str, str] = {}
    if body["value"] and metadata.CURRENCY in (wanted.expand or {}):
        currencies = (await api.described(kind)).fields[metadata.CURRENCY].options
    told = [_change(kind, each, wanted, fields, currencies, id) for each in body["value"]]
    return Changes(changes=told, cursor=msgspec.json.encode(_Place(following)).decode(), more=bool(page))


def _change(kind: Kind, said: Row, wanted: View, fields: Sequence[str], currencies: Mapping[str, str], id: str) -> Change:
    if str(said.get("@odata.context", "")).endswith("/$deletedEntity"):
        return Change(kind=kind, native_id=str(said["id"]), op="DELETED")
    native_id, at = str(said[id]), told_time(said["modifiedon"])
    if said.get("merged"):
        master = said.get("_masterid_value")
        return Change(kind=kind, native_id=native_id, op="MERGED" if master else "DELETED", at=at, into=master)
    return Change(kind=kind, native_id=native_id, at=at, row=_whole(said, wanted, fields, currencies))


def _whole(said: Row, wanted: View, fields: Sequence[str], currencies: Mapping[str, str]) -> Row | None:
    """Return the row as `read` gives it; None where something is not told here."""
    row = neat({name: value for name, value in said.items() if not name.endswith(_TABLE)})
    labels = [path.removeprefix(FORMATTED) for path in fields if path.startswith(FORMATTED)]
    if not all(name in row for name in wanted.select) or any(
        row[name] is not None and name not in row.get(FORMATTED[:-1], {}) for name in labels
    ):
        return None
    for navigation, columns in (wanted.expand or {}).items():
        stored = _lookup(navigation)
        if stored is None or stored not in said:
            return None
        value, table, expected = said[stored], said.get(f"{stored}@{_TABLE}"), navigation.rpartition("_")[2]
        if navigation == metadata.CURRENCY and tuple(columns) == ("isocurrencycode",):
            leads = {"isocurrencycode": currencies[value]} if value in currencies else None
            known = value is None or leads is not None
        else:
            leads = {columns[0]: value} if value is not None and table == expected else None
            known = tuple(columns) == (f"{expected}id",) and (value is None or table is not None)
        if not known:
            return None
        row[navigation] = leads
    return row


def _lookup(navigation: str) -> str | None:
    """Return the column behind a navigation property, None where its name does not tell."""
    name = navigation.partition("_")[0]
    return f"_{name}_value" if name in _SEVERAL or navigation == metadata.CURRENCY else None


# ---- webhooks ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a webhook by the key in its address, and read which record it is about.

    The values in it are not used: beyond 256 KB they are left out (`x-ms-dynamics-msg-size-exceeded`), and an Update names only
    those that changed.
    """
    code = delivery.query.get("code", "")
    if not code or not matches(code, *(each for each in secrets if each)):
        raise SignatureError("dynamics: a webhook without the right key")
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("dynamics: a webhook is no JSON") from error
    if not isinstance(body, dict) or not isinstance(body.get("MessageName"), str):
        raise ProtocolError("dynamics: a webhook without its message")
    if (kind := _KINDS.get(str(body.get("PrimaryEntityName")))) is None:
        return Heard()
    at = _at(body.get("OperationCreatedOn"))
    # An asynchronous step runs as a job of its own, whose number is told where the body is whole.
    known = [body.get(name) for name in ("CorrelationId", "MessageName", "OperationCreatedOn", "OperationId")]
    return Heard(
        hints=[Hint(id=digest_of(*known, each.kind, each.native_id, each.op), change=each) for each in _told(body, kind, at)]
    )


def _told(body: Row, kind: Kind, at: datetime | None) -> list[Change]:
    message, given = str(body["MessageName"]), _pairs(body.get("InputParameters"))
    target = given.get("Target")
    target = target if isinstance(target, dict) else {}
    native_id = _id(body.get("PrimaryEntityId")) or _id(target.get("Id"))
    if message == "Merge":
        loser, winner = _id(given.get("SubordinateId")), _id(target.get("Id")) or native_id
        if winner is None:
            raise ProtocolError("dynamics: a merge without its record")
        gone = [Change(kind=kind, native_id=loser, op="MERGED", at=at, into=winner)] if loser else []
        return [*gone, Change(kind=kind, native_id=winner, at=at)]
    if native_id is None:
        raise ProtocolError("dynamics: a webhook without the id of its record")
    if message == "Delete":
        return [Change(kind=kind, native_id=native_id, op="DELETED", at=at)]
    values = _pairs(target.get("Attributes"))
    master = values.get("masterid")
    into = _id(master.get("Id")) if isinstance(master, dict) else None
    if values.get("merged") is True and into is not None:
        return [Change(kind=kind, native_id=native_id, op="MERGED", at=at, into=into)]
    return [Change(kind=kind, native_id=native_id, at=at)]


def _pairs(said: Any) -> dict[str, Any]:
    """Read a collection of keys and values."""
    rows = said if isinstance(said, list) else []
    return {str(each.get("key")): each.get("value") for each in rows if isinstance(each, dict)}


def _id(said: Any) -> str | None:
    return str(said).lower() if is_guid(said) and said != _NOBODY else None


def _at(said: Any) -> datetime | None:
    """Read "/Date(1506409448000-0700)/": milliseconds since 1970, and a zone that changes nothing."""
    found = _DATE.fullmatch(said) if isinstance(said, str) else None
    return instant(int(found[1])) if found is not None else None

"""Marketo Engage, REST API.

Facts from Adobe's own pages (authentication, error codes, leads, activities, paging tokens, lead database, field types) and its published
description. The base address is the instance's, such as https://123-ABC-456.mktorest.com: `/rest` and `/identity` are appended.

Everything answers 200: faults are codes in the body, for the call or for one record (`adapters/marketo_errors.py`). Leads are people, so
their kind is contact. There is no list of leads and no filter by the time of change: they are found by address, read by id, and not listed. What changed is read
from the log of activities (`adapters/marketo_live.py`).

`updatedAt` moves when a standard field changes, not when a custom one does: as a version it tells no change of those.

Marketo asks each application to keep to half of what the instance may: all integrations share it, and no header tells what the others took.

Doubts: that a filter by e-mail ignores case, the address of a lead's page, that a lead without an address is made by `createDuplicate`,
and how many empty pages activities begin with when they are asked for from long ago; no document says.
"""

import asyncio
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from typing import Any, ClassVar
from urllib.parse import urlencode

import orjson

from adapters import marketo_live
from adapters.base import (
    Adapter,
    Api,
    Auth,
    Checked,
    FindKey,
    KindFacts,
    Live,
    OAuth,
    Outcome,
    Related,
    Request,
    Response,
    Window,
    Write,
    batches,
)
from adapters.changes import Changes, Delivery, Heard
from adapters.marketo_errors import TooManyError, fault_of, record_fault
from adapters.writing import Applied, settled
from mapping.convert import instant
from model.errors import DuplicateError, ProtocolError, RejectedError, SourceError, SourceForbiddenError
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row

_BATCH, _PARENTS = 300, 30
_URL = 6000  # characters of a query; beyond 8 KB of address Marketo answers 414
_BODY = 900_000  # bytes of records in a request; beyond 1 MB Marketo answers 413
_EVER = "2006-01-01T00:00:00Z"  # before Marketo itself
# The ten types that one call can ask for. Not among them: 3 Click Link, 12 New Lead, 13 Change Data Value, 22 Change Score, custom ones.
_ACTIVITIES: Mapping[str, tuple[str, str]] = {
    "1": ("Visit Webpage", "PAGE_VISITED"), "2": ("Fill Out Form", "FORM_FILLED"), "6": ("Send Email", "EMAIL_SENT"),
    "7": ("Email Delivered", "EMAIL_DELIVERED"), "8": ("Email Bounced", "EMAIL_BOUNCED"), "9": ("Unsubscribe Email", "UNSUBSCRIBED"),
    "10": ("Open Email", "EMAIL_OPENED"), "11": ("Click Email", "EMAIL_CLICKED"), "24": ("Add to List", "LIST_ADDED"),
    "27": ("Email Bounced Soft", "EMAIL_BOUNCED"),
}  # fmt: skip
_TYPES: Mapping[str, FieldType] = {
    "boolean": "BOOLEAN", "integer": "NUMBER", "float": "NUMBER", "score": "NUMBER", "percent": "NUMBER", "currency": "MONEY",
    "date": "DATE", "datetime": "DATETIME", "reference": "REFERENCE", "formula": "FORMULA",
}  # fmt: skip


class Marketo(Adapter):
    name = "marketo"
    label = "Marketo Engage"
    api_version = "v1"
    evidence = "E3"
    shown_by = "tests/conformance/test_marketo_client.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        "oauth": OAuth(
            token_path="/identity/oauth/token", body="query", dead_grant=frozenset({"unauthorized", "invalid_client"})
        ),
    }
    windows = (
        Window(name="burst", limit=50, period=20, kind="rolling"),
        Window(name="parallel", limit=5, kind="parallel"),
        Window(name="daily", limit=50_000, period=86_400, kind="fixed"),
    )
    live = Live(
        push="calls that an administrator writes into a smart campaign (`adapters/marketo_live.py` has the template), proved by a secret in a header",
        feed="new leads and changed values from activities/leadchanges.json, scores from activities.json; both after a paging token",
        deletes="activities/deletedleads.json, for about 14 days; merges as activities of their own",
        why="there are no webhooks to subscribe to, and nobody promises how soon a campaign runs or an activity is told. Asking costs three calls of a "
        "daily 50,000 that all integrations share, so once a minute is as often as is fair",
    )  # fmt: skip
    push = marketo_live.PUSH
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="leads", read_batch=_BATCH, find=frozenset({"email"}), find_batch=_BATCH,
            mapping={
                "native_id": {"path": "id", "convert": "id"},
                "created_at": {"path": "createdAt", "convert": "datetime"}, "updated_at": {"path": "updatedAt", "convert": "datetime"},
                "email": {"path": "email", "convert": "email"}, "emails": {"paths": ["email"], "convert": "emails"},
                "phone": {"path": "phone", "convert": "phone"}, "phones": {"paths": ["phone", "mobilePhone"], "convert": "phones"},
                "given_name": {"path": "firstName", "convert": "text"}, "family_name": {"path": "lastName", "convert": "text"},
                "name": {"paths": ["firstName", "lastName"], "convert": "join"}, "title": {"path": "title", "convert": "text"},
            },
            writes={"email": "email", "phone": "phone", "given_name": "firstName", "family_name": "lastName", "title": "title"},
            verbs=frozenset({"create", "update", "upsert", "delete"}), write_batch=_BATCH, upsert_by=frozenset({"email"}), feed=marketo_live.FEED,
        ),
        "marketing_event": KindFacts(
            object="activities", read_batch=0,
            mapping={
                # Of `id` the documents say that it may be absent and is not unique.
                "native_id": {"path": "marketoGUID", "convert": "id"},
                "created_at": {"path": "activityDate", "convert": "datetime"}, "at": {"path": "activityDate", "convert": "datetime"},
                "event": {"path": "activityTypeId", "convert": "id", "values": {id: event for id, (_, event) in _ACTIVITIES.items()}, "default": "CUSTOM"},
                "raw_kind": {"path": "activityTypeId", "convert": "id", "values": {id: name for id, (name, _) in _ACTIVITIES.items()}, "default": "Other"},
                "campaign": {"path": "primaryAttributeValue", "convert": "text"},  # the mailing; of visits and forms, the page and the form
                "contact_id": {"path": "leadId", "convert": "id"},
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "marketing_event")})

    async def check(self, api: Api) -> Checked:
        said = [("filterType", "id"), ("filterValues", "1"), ("fields", "id")]
        await api.send(Request(operation="check", path="/rest/v1/leads.json", params=said))
        host = self.config.base_url.split("://", 1)[-1]
        return Checked(account=host.removesuffix(".mktorest.com"))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """Two calls for leads: one tells what can be written, the other what is custom.

        The second takes a permission of its own (schema fields); without it, what the default mapping does not name counts as custom.
        """
        if kind == "marketing_event":
            return ObjectType(
                name="activities", fields=_activity_fields(await self._all(api, f"{kind}.describe", "activities/types.json", []))
            )
        [described] = await self._all(api, f"{kind}.describe", "leads/describe2.json", [])
        try:
            schema = await self._all(api, f"{kind}.schema", "leads/schema/fields.json", [("batchSize", str(_BATCH))])
            custom = {each["name"] for each in schema if each["isCustom"]}
        except SourceForbiddenError:
            ours = {path for rule in self.kinds[kind].mapping.values() for path in rule.get("paths", [rule.get("path")])}
            custom = {each["name"] for each in described["fields"]} - ours
        fields = (_field(each, each["name"] in custom) for each in described["fields"])
        return ObjectType(name="leads", fields={field.name: field for field in fields})

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 300) lists; what is not there is left out of them."""
        known = [id for id in ids if id.isdecimal()]
        asked = (self._leads(api, "contact.read", "id", some, fields) for some in batches(known, _BATCH))
        found = {str(row["id"]): row for row in chain.from_iterable(await asyncio.gather(*asked))}
        return [found.get(id) for id in ids]

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 300) lists; a group that more than 1,000 leads match is refused, and asked for in halves."""
        asked = (self._leads(api, "contact.find", "email", some, fields) for some in batches(values, _BATCH))
        found = chain.from_iterable(await asyncio.gather(*asked))
        return list({row["id"]: row for row in found}.values())

    async def _leads(self, api: Api, operation: str, by: str, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        said = [("filterType", by), ("filterValues", ",".join(values)), ("fields", ",".join(fields)), ("batchSize", str(_BATCH))]
        try:
            return await self._all(api, operation, "leads.json", said)
        except TooManyError:
            if len(values) == 1:
                raise
        half = len(values) // 2
        return [row for some in (values[:half], values[half:]) for row in await self._leads(api, operation, by, some, fields)]

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """1 call for a paging token, then the pages of each 30 leads, oldest first.

        Pages end where Marketo likes, also when they hold nothing: only `moreResult` tells, and it counts for all 30 at once.
        """
        asked = Request(
            operation="marketing_event.token", path="/rest/v1/activities/pagingtoken.json", params=[("sinceDatetime", _EVER)]
        )
        token = (await api.send(asked)).json()["nextPageToken"]
        parts = await asyncio.gather(*(self._activities(api, some, token, first) for some in batches(ids, _PARENTS)))
        return [each for part in parts for each in part]

    async def _activities(self, api: Api, leads: Sequence[str], token: str, first: int) -> list[Related]:
        said = [("activityTypeIds", ",".join(_ACTIVITIES)), ("leadIds", ",".join(leads)), ("batchSize", str(_BATCH))]
        found: dict[str, dict[str, Row]] = {id: {} for id in leads}
        more = True
        while more and any(len(rows) <= first for rows in found.values()):
            rows, token, more = await self._page(api, "contact.marketing_event", "activities.json", said, token)
            for row in rows:
                if (mine := found.get(str(row["leadId"]))) is not None:
                    mine[row["marketoGUID"]] = row
        ordered = [sorted(rows.values(), key=_happened) for rows in found.values()]
        return [Related(rows=rows[:first], more=len(rows) > first) for rows in ordered]

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """One request after the other: upserts of one address in the same request, or at the same time, would make two leads."""
        outcomes = {at: _not_there(each) for at, each in enumerate(writes) if each.native_id and not each.native_id.isdecimal()}
        for action, places in _requests(writes, outcomes.keys()):
            some = [writes[at] for at in places]
            done = await settled(some, partial(self._written, api, action))
            outcomes |= zip(places, done, strict=True)
        return [outcomes[at] for at in range(len(writes))]

    async def _written(self, api: Api, action: str, writes: Sequence[Write]) -> list[Outcome]:
        records = [{**({"id": int(each.native_id)} if each.native_id else {}), **each.row} for each in writes]
        if action == "delete":
            path, head = "/rest/v1/leads/delete.json", {}
        else:
            path, head = "/rest/v1/leads.json", {"action": action, "lookupField": "id" if action == "updateOnly" else "email"}
        # An upsert that may still be under way is not sent again: the second would not see the first, and make another lead.
        safe = action in {"updateOnly", "delete"} and all(each.repeatable for each in writes)
        asked = Request(operation=f"contact.{action}", method="POST", path=path, json={**head, "input": records}, safe=safe)
        told = (await api.send(asked)).json().get("result")
        if not isinstance(told, list) or len(told) != len(writes):
            raise ProtocolError("did not tell of each record what became of it", status=200)
        return [_outcome(write, each) for write, each in zip(writes, told, strict=True)]

    # ---- changes ----

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        if kind != "contact":
            return await super().changes(api, kind, cursor, fields, now=now)
        return await marketo_live.changes(self._page, api, cursor, fields, now=now)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return marketo_live.heard(delivery, secrets)

    # ---- pages ----

    async def _all(self, api: Api, operation: str, path: str, said: Sequence[tuple[str, str]]) -> list[Row]:
        found, token, more = await self._page(api, operation, path, said, "")
        while more:
            rows, token, more = await self._page(api, operation, path, said, token)
            found += rows
        return found

    async def _page(
        self, api: Api, operation: str, path: str, said: Sequence[tuple[str, str]], token: str
    ) -> tuple[list[Row], str, bool]:
        """Return a page, the token of the next one, and whether there is one."""
        params = [*said, *([("nextPageToken", token)] if token else [])]
        whole = f"/rest/v1/{path}"
        if len(urlencode(params)) <= _URL:
            asked = Request(operation=operation, path=whole, params=params)
        else:
            asked = Request(operation=operation, path=whole, method="POST", params=[("_method", "GET")], form=params)
        told = (await api.send(asked)).json()
        following, more = str(told.get("nextPageToken") or ""), bool(told.get("moreResult"))
        if more and following in {"", token}:
            raise ProtocolError("said that there is more, and not where", status=200)
        return told.get("result") or [], following, more

    def classify(self, response: Response) -> SourceError | None:
        return fault_of(response)

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        if kind != "contact" or not self.config.web_url:
            return None
        return f"{self.config.web_url}/leadDatabase/loadLeadDetail?leadId={native_id}"


def _happened(row: Row) -> tuple[Any, int, str]:
    return instant(row["activityDate"]), len(row["marketoGUID"]), row["marketoGUID"]


def _action(write: Write) -> str:
    """Return Marketo's word. A lead without an address has no key by which another could exist already."""
    if write.verb == "create":
        return "createOnly" if write.row.get("email") else "createDuplicate"
    return {"update": "updateOnly", "upsert": "createOrUpdate", "delete": "delete"}[write.verb]


def _requests(writes: Sequence[Write], without: Container[int]) -> Iterator[tuple[str, list[int]]]:
    """Yield (action, places in `writes`) of each request: as many records as one may hold, and no address twice."""
    by_action: dict[str, list[int]] = {}
    for at, write in enumerate(writes):
        if at not in without:
            by_action.setdefault(_action(write), []).append(at)
    for action, places in by_action.items():
        part: list[int] = []
        addresses: set[str] = set()
        size = 0
        for at in places:
            row = writes[at].row
            address, weight = str(row.get("email") or "").lower(), len(orjson.dumps(row))
            if part and (len(part) == _BATCH or size + weight > _BODY or address in addresses):
                yield action, part
                part, addresses, size = [], set(), 0
            part.append(at)
            addresses |= {address} - {""}
            size += weight
        yield action, part


def _not_there(write: Write) -> Outcome:
    if write.verb == "delete":
        return Outcome(state="UNCHANGED", native_id=write.native_id)
    return Outcome(state="REJECTED", native_id=write.native_id, error=RejectedError("not found", status=404))


def _outcome(write: Write, told: Row) -> Outcome:
    """Return what became of a record; one that was skipped was certainly not written, whatever the reason."""
    native_id = str(told["id"]) if told.get("id") else write.native_id
    if told.get("status") in {"created", "updated", "deleted"}:
        return Outcome(
            state="APPLIED", native_id=native_id, created=told["status"] == "created" if write.verb == "upsert" else None
        )
    reason = next(iter(told.get("reasons") or told.get("errors") or [{}]))
    error = record_fault(reason)
    if error.code == "NOT_FOUND":
        return _not_there(write)
    message = str(reason.get("message"))
    named = [path for path in write.row if f"'{path}'" in message]
    state: Applied = "CONFLICT" if isinstance(error, DuplicateError) else "REJECTED"
    return Outcome(state=state, native_id=write.native_id, error=error, fields=named)


def _field(each: Row, custom: bool) -> FieldMeta:
    return FieldMeta(
        name=each["name"], path=each["name"], type=_TYPES.get(each["dataType"], "TEXT"), label=each["displayName"], custom=custom,
        writable=bool(each["updateable"]),
    )  # fmt: skip


def _activity_fields(types: Sequence[Row]) -> dict[str, FieldMeta]:
    names = {str(each["id"]): str(each["name"]) for each in types}
    told: Sequence[tuple[str, FieldType]] = (
        ("marketoGUID", "TEXT"), ("leadId", "REFERENCE"), ("activityDate", "DATETIME"), ("activityTypeId", "PICKLIST"),
        ("primaryAttributeValue", "TEXT"), ("campaignId", "REFERENCE"), ("attributes", "JSON"),
    )  # fmt: skip
    return {
        name: FieldMeta(
            name=name, path=name, type=type, label=name, writable=False, options=names if name == "activityTypeId" else {}
        )
        for name, type in told
    }

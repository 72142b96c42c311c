"""SugarCRM (Sugar Sell, Serve, Enterprise).

Facts from the Sugar Developer Guide (REST v10 to v11.27: filters, bulk, links, metadata, exceptions) and the SugarCloud policy guide.
What these leave open, and this relies on: that dropdown labels and each stage's probability come from `/lang/{language}`, ISO codes from
the metadata's `currencies`, won and lost from the configuration of Forecasts (each is done without where the instance has it not),
that a filter compares ids as `order_by` sorts them, and addresses without regard to case, as the usual databases do.
Visibility by teams hides records without a word.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, ClassVar
from urllib.parse import urlencode

import orjson

from adapters import sugarcrm_live as hooks
from adapters.base import (
    Adapter,
    Api,
    Auth,
    Checked,
    FindKey,
    KindFacts,
    Live,
    OAuth,
    OrderField,
    Outcome,
    Page,
    Position,
    Related,
    Request,
    Response,
    Scan,
    Window,
    Write,
    batches,
    code_in,
    undocumented,
)
from adapters.changes import Changes, Delivery, Heard, Watch, scanned_changes
from adapters.sugarcrm_writing import BULK, CURRENCY, LINKS, Writer
from adapters.ties import whole_groups
from mapping.convert import boolean, instant
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
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row, Stage, StageCategory

_IN, _LIKE, _PAGE = 200, 20, 200  # an instance caps pages at 1,000 unless set otherwise; a shorter page than asked for is told
_BOTH: frozenset[OrderField] = frozenset({"created", "updated"})
_COLUMNS: Mapping[OrderField, str] = {"created": "date_entered", "updated": "date_modified"}
_WON, _LOST = ("Closed Won",), ("Closed Lost",)
_TYPES: Mapping[str, FieldType] = {
    "int": "NUMBER", "tinyint": "NUMBER", "long": "NUMBER", "ulong": "NUMBER", "float": "NUMBER", "double": "NUMBER", "decimal": "NUMBER",
    "bool": "BOOLEAN", "date": "DATE", "datetime": "DATETIME", "datetimecombo": "DATETIME", "currency": "MONEY", "enum": "PICKLIST",
    "radioenum": "PICKLIST", "multienum": "MULTI_PICKLIST", "relate": "REFERENCE", "email": "JSON", "tag": "JSON", "teamset": "JSON", "json": "JSON",
}  # fmt: skip
_TIMES: Mapping[str, Any] = {
    "native_id": "id", "created_at": {"path": "date_entered", "convert": "datetime"}, "updated_at": {"path": "date_modified", "convert": "datetime"},
}  # fmt: skip
_OWNER: Mapping[str, Any] = {"owner_id": {"path": "assigned_user_id", "convert": "id"}}
_ADDRESSES = "entries:email_address,primary_address"


def _person(*phones: str) -> Mapping[str, Any]:
    return {
        **_TIMES, **_OWNER,
        "email": {"path": "email", "convert": [_ADDRESSES, "first", "email"]}, "emails": {"path": "email", "convert": [_ADDRESSES, "emails"]},
        "phone": {"paths": phones, "convert": ["first", "phone"]}, "phones": {"paths": phones, "convert": "phones"},
        "given_name": {"path": "first_name", "convert": "text"}, "family_name": {"path": "last_name", "convert": "text"},
    }  # fmt: skip


def _text(path: str) -> Mapping[str, Any]:
    return {"path": path, "empty": ""}


_WRITES_PERSON: Mapping[str, Any] = {
    "email": "email",  # the whole list is made of it in `sugarcrm_writing.py`
    "phone": _text("phone_work"), "given_name": _text("first_name"), "family_name": "last_name", "owner_id": _text("assigned_user_id"),
}  # fmt: skip
_LISTED: Mapping[str, Any] = {"read_batch": _IN, "page": _PAGE, "orders": _BOTH, "feed": hooks.FEED}
_WRITTEN: Mapping[str, Any] = {"verbs": frozenset({"create", "update", "delete"}), "write_batch": BULK, "if_version": True}


class SugarCRM(Adapter):
    name = "sugarcrm"
    label = "SugarCRM"
    api_version = "v11_20"
    evidence = "E2"
    shown_by = "tests/adapters/test_sugarcrm_shapes.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        # Any version gives tokens. The platform is a place of its own for a session: a second login of the same user and platform
        # ends the first. Newer releases know registered platforms only: `options.platform` names the one that was registered.
        "password": OAuth(
            token_path="/rest/v10/oauth2/token", body="json", header="OAuth-Token", prefix="", first_grant="password",
            public_client="sugar", fields={"platform": "{platform}"}, defaults={"platform": "c360_integration"},
        ),
    }  # fmt: skip
    # The cloud allows 20 calls a second and then blocks the address without an answer, for how long is not said: this stays well below.
    windows = (Window(name="second", limit=12, kind="rolling"), Window(name="parallel", limit=6, kind="parallel"))
    pause_when_cut = 1.0
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="Contacts", find=frozenset({"email"}), find_batch=_IN, **_LISTED, **_WRITTEN,
            mapping={
                **_person("phone_work", "phone_mobile", "phone_home", "phone_other"), "title": {"path": "title", "convert": "text"},
                "account_id": {"path": "account_id", "convert": "id"},
            },
            writes={**_WRITES_PERSON, "title": _text("title")}, links={"account": "account_id", "deal": None},
        ),
        "lead": KindFacts(
            object="Leads", find=frozenset({"email"}), find_batch=_IN, **_LISTED, **_WRITTEN,
            mapping={**_person("phone_work", "phone_mobile"), "status": {"path": "status", "convert": "text"}, "company": {"path": "account_name", "convert": "text"}},
            writes={**_WRITES_PERSON, "status": _text("status"), "company": _text("account_name")},
        ),
        "account": KindFacts(
            object="Accounts", find=frozenset({"domain"}), find_batch=_LIKE, **_LISTED, **_WRITTEN,
            mapping={
                **_TIMES, **_OWNER, "name": {"path": "name", "convert": "text"}, "domain": {"path": "website", "convert": "domain"},
                "industry": {"path": "industry", "convert": "text"}, "parent_id": {"path": "parent_id", "convert": "id"},
            },
            writes={
                "name": "name", "domain": _text("website"), "industry": _text("industry"), "parent_id": _text("parent_id"), "owner_id": _text("assigned_user_id"),
            },
        ),
        "deal": KindFacts(
            object="Opportunities", **_LISTED, **_WRITTEN,
            mapping={
                **_TIMES, **_OWNER, "name": {"path": "name", "convert": "text"}, "amount": {"money": {"amount": "amount", "currency": CURRENCY}},
                # Where revenue line items make up opportunities, older releases leave the stage empty and state how it ended.
                "stage": {"paths": ["sales_stage", "sales_status"], "convert": ["first", "stage"]},
                "probability": {"path": "probability", "convert": "percent"}, "close_date": {"path": "date_closed", "convert": "date"},
                "account_id": {"path": "account_id", "convert": "id"},
            },
            writes={
                "name": "name", "amount": {"money": {"amount": "amount", "currency": CURRENCY, "text": True}}, "stage": "sales_stage",
                "close_date": "date_closed", "owner_id": _text("assigned_user_id"),
            },
            links={"account": "account_id", "contact": None},
        ),
        "owner": KindFacts(
            object="Users", read_batch=_IN,
            mapping={
                "native_id": "id", "updated_at": _TIMES["updated_at"], "name": {"paths": ["first_name", "last_name"], "convert": "join"},
                "email": {"path": "email", "convert": [_ADDRESSES, "first", "email"]},
            },
        ),
    }  # fmt: skip
    relations = frozenset(
        {("contact", "deal"), ("deal", "contact"), ("account", "contact"), ("account", "deal"), ("deal", "account")}
    )
    live = Live(
        push="web logic hooks, two for each module, unsigned: a secret of ours stands in the address",
        feed="filters on date_modified, each module by itself; times are whole seconds: two minutes are read again",
        deletes="hooks after a delete, and lists with deleted=true; a merged record shows as deleted, and nothing names the one it went into",
        why=(
            "web logic hooks are sent when cron runs the job queue, up to a minute late and in no order; only a logic hook in PHP, "
            "installed on the instance, tells at once"
        ),
    )
    push = hooks.PUSH
    _deleted: ClassVar[bool] = False  # deleted records are listed with the others

    @property
    def _version(self) -> str:
        return self.config.api_version or self.api_version

    @property
    def _root(self) -> str:
        return f"/rest/{self._version}"

    async def check(self, api: Api) -> Checked:
        await api.send(Request(operation="check", path=f"{self._root}/me"))
        return Checked(account=self.config.base_url)  # an instance has one host and one budget

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        """The module's fields, options as labels; an opportunity's stages and the instance's currencies, too."""
        module = self.kinds[kind].object
        asked = {"type_filter": "modules,currencies", "module_filter": f"{module},Forecasts" if kind == "deal" else module}
        request = Request(operation=f"{kind}.describe", path=f"{self._root}/metadata", params=list(asked.items()))
        answer, words = await asyncio.gather(api.send(request), self._words(api, kind))
        found = answer.json()
        modules, currencies = found["modules"], found.get("currencies") or {}
        if module not in modules:
            raise SourceForbiddenError(f"the user may not see the module {module}")
        dropdowns, labels = words.get("app_list_strings") or {}, (words.get("mod_strings") or {}).get(module) or {}
        fields = {
            name: _field(name, said, labels, dropdowns)
            for name, said in modules[module]["fields"].items()
            if isinstance(said, dict) and said.get("type") not in {"link", "collection"}
        }
        codes = {id: each["iso4217"] for id, each in currencies.items()}
        if kind != "deal":
            return ObjectType(name=module, fields=fields, currency=codes.get("-99"), version=str(found.get("_hash", "")))
        fields["currency_id"] = FieldMeta(
            name="currency_id", path="currency_id", type="REFERENCE", label="Currency", options=codes
        )
        keys = (await api.send(Request(operation="deal.stages", path=f"{self._root}/{module}/enum/sales_stage"))).json()
        stages = _stages(keys, (modules.get("Forecasts") or {}).get("config") or {}, dropdowns)
        return ObjectType(
            name=module, fields=fields, stages=stages, currency=codes.get("-99"), version=str(found.get("_hash", ""))
        )

    async def _words(self, api: Api, kind: Kind) -> Row:
        """Return labels and dropdowns; none where the instance does not give them out."""
        language = self.config.options.get("language", "en_us")
        try:
            words: Row = (await api.send(Request(operation=f"{kind}.words", path=f"{self._root}/lang/{language}"))).json()
        except RejectedError:
            return {}
        return words

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 200) filters."""
        asked = (self._all(api, f"{kind}.read", kind, [{"id": {"$in": list(some)}}], fields) for some in batches(ids, _IN))
        found = {row["id"]: row for row in chain.from_iterable(await asyncio.gather(*asked))}
        return [found.get(id) for id in ids]

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """An account's children: ceil(parents / 200) filters. A deal's account: two reads. Contact and deal: lists of links,
        20 of them in a bulk call, since a filter across a link does not say which parent a row came by."""
        if (of, kind) in LINKS:
            return await self._linked(api, kind, of, ids, fields, first)
        if of == "deal":
            deals = await self.read(api, of, ids, ["account_id"])
            wanted = list(dict.fromkeys(deal["account_id"] for deal in deals if deal and deal.get("account_id")))
            accounts = dict(zip(wanted, await self.read(api, kind, wanted, fields), strict=True))
            of_each = [accounts.get(deal.get("account_id", "")) if deal else None for deal in deals]
            return [Related(rows=[account] if account else []) for account in of_each]
        children = [*fields, "account_id"]
        asked = (
            self._all(api, f"{of}.{kind}", kind, [{"account_id": {"$in": list(some)}}], children, column="date_entered")
            for some in batches(ids, _IN)
        )
        found: dict[str, list[Row]] = {}
        for row in chain.from_iterable(await asyncio.gather(*asked)):
            found.setdefault(row.get("account_id", ""), []).append(row)
        return [Related(rows=found.get(id, [])[:first], more=len(found.get(id, [])) > first) for id in ids]

    async def _linked(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        asked = urlencode({"fields": self._names(fields), "max_num": first, "order_by": "date_entered:asc,id:asc"})
        calls = [{"url": f"/{self.kinds[of].object}/{id}/link/{LINKS[of, kind]}?{asked}", "method": "GET"} for id in ids]
        parts = await asyncio.gather(*(self.bulk(api, f"{of}.{kind}", some, safe=True) for some in batches(calls, BULK)))
        related = []
        for answer in chain.from_iterable(parts):
            fault = self.classify(answer)
            if fault is not None and fault.status != 404:  # a parent that is gone has nothing
                raise fault
            found: Row = answer.json() if fault is None else {"records": [], "next_offset": -1}
            rows = await self._with_currency(api, found["records"], fields)
            related.append(Related(rows=rows, more=found["next_offset"] != -1))
        return related

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 200) filters over all addresses of a record; ceil(values / 20) for domains, which stand in web addresses.
        Phones match by their spelling only, so nothing is found by them."""
        if key == "domain":
            tests: list[list[Row]] = [
                [{"$or": [{"website": {"$contains": value}} for value in some]}] for some in batches(values, _LIKE)
            ]
        else:
            tests = [[{"email_addresses.email_address": {"$in": list(some)}}] for some in batches(values, _IN)]
        rows = await asyncio.gather(*(self._all(api, f"{kind}.find", kind, test, fields) for test in tests))
        return list({row["id"]: row for row in chain.from_iterable(rows)}.values())

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One filter a page, more where a group of equal seconds fills it. Never by offset: that drifts while rows change."""
        column = _COLUMNS[scan.order]
        spans = [
            (column, "$lte" if scan.descending else "$gte", scan.after.at if scan.after else None),
            ("date_modified", "$gte", scan.updated_since), ("date_modified", "$lt", scan.updated_before),
        ]  # fmt: skip
        tests: list[Row] = [{name: {operator: _second(at)}} for name, operator, at in spans if at is not None]

        async def fetch(last: Row | None) -> tuple[list[Row], Row | None]:
            rows, more = await self._some(
                api, f"{kind}.scan", kind, tests, scan.fields, size=min(scan.size, _PAGE), column=column, descending=scan.descending, last=last
            )  # fmt: skip
            return rows, rows[-1] if more else None

        def place(row: Row) -> Position:
            at = instant(row[column])
            assert at is not None
            return Position.of(at, row["id"])

        return await whole_groups(scan, fetch, place)

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        """ceil(rows / 200) filters, at least one; deleted records are among the rows, with nothing but id and time.

        Some instances prune what is deleted on the first of a month: a record deleted just before is missed.
        """
        found = await scanned_changes(_Whole(self.config), api, kind, cursor, fields, now=now)
        told = [replace(each, op="DELETED", row=None) if each.row and boolean(each.row.get("deleted") or False) else each
                for each in found.changes]  # fmt: skip
        return replace(found, changes=told)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return hooks.heard(delivery, secrets)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        return await hooks.watched(self, api, url, secret, root=self._root)

    async def unwatch(self, api: Api, url: str) -> int:
        return await hooks.unwatched(self, api, url, root=self._root)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        modules = {name: facts.object for name, facts in self.kinds.items()}
        return await Writer(self, root=self._root, modules=modules).write(api, kind, writes)

    async def _all(
        self, api: Api, operation: str, kind: Kind, tests: Sequence[Row], fields: Sequence[str], *, column: str = "date_modified"
    ) -> list[Row]:
        """Return all rows, the lowest time first. Each row comes with the time of its last change, wanted or not."""
        rows, more = await self._some(api, operation, kind, tests, fields, column=column)
        while more:
            following, more = await self._some(api, operation, kind, tests, fields, column=column, last=rows[-1])
            rows += following
        return rows

    async def _some(
        self, api: Api, operation: str, kind: Kind, tests: Sequence[Row], fields: Sequence[str], *, column: str, size: int = _PAGE,
        descending: bool = False, last: Row | None = None,
    ) -> tuple[list[Row], bool]:  # fmt: skip
        """Return rows by (time, id), those behind `last`, and whether there are more."""
        way, beyond = ("desc", "$lt") if descending else ("asc", "$gt")
        if last is not None:
            at = _second(instant(last[column]))
            same = [{column: {"$gte": at}}, {column: {"$lte": at}}, {"id": {beyond: last["id"]}}]
            tests = [*tests, {"$or": [{column: {beyond: at}}, {"$and": same}]}]
        body = {
            "filter": list(tests), "fields": self._names([column, *fields]), "max_num": size, "order_by": f"{column}:{way},id:{way}",
            **({"deleted": True} if self._deleted else {}),
        }  # fmt: skip
        path = f"{self._root}/{self.kinds[kind].object}/filter"
        found = (await api.send(Request(operation=operation, method="POST", path=path, json=body))).json()
        return await self._with_currency(api, found["records"], fields), found["next_offset"] != -1

    async def _with_currency(self, api: Api, rows: list[Row], fields: Sequence[str]) -> list[Row]:
        """Put the ISO code beside the currency's id, where it is wanted."""
        if CURRENCY not in fields or not rows:
            return rows
        codes = (await api.described("deal")).fields["currency_id"].options
        return [{**row, CURRENCY: codes.get(row.get("currency_id") or "-99")} for row in rows]

    @staticmethod
    def _names(fields: Sequence[str]) -> str:
        """Return the fields to ask for; a path into one asks for it whole."""
        return ",".join(dict.fromkeys(("id", *("currency_id" if path == CURRENCY else path.split(".")[0] for path in fields))))

    async def bulk(self, api: Api, operation: str, calls: Sequence[Row], *, safe: bool) -> list[Response]:
        """Send calls as one; return their answers in order."""
        requests = [{**each, "url": f"/{self._version}{each['url']}"} for each in calls]
        request = Request(operation=operation, method="POST", path=f"{self._root}/bulk", json={"requests": requests}, safe=safe)
        answers = (await api.send(request)).json()
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise ProtocolError("a bulk call answered for other requests than it was given")
        return [Response(status=each["status"], headers={}, body=orjson.dumps(each["contents"])) for each in answers]

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return None
        body = response.json_or_none()
        said = body if isinstance(body, dict) else {}
        code = code_in(said.get("error"))
        facts: dict[str, Any] = {"status": response.status, "upstream_code": code or None}
        if response.status == 401:
            return TokenExpiredError("the session is not accepted", **facts)
        if response.status == 403:
            return SourceForbiddenError("the user may not do this", **facts)
        if response.status == 409:
            return StaleVersionError("the record was changed meanwhile", **facts)
        if response.status == 429:  # not Sugar's own: what stands before it may say so
            return ThrottledError("too many calls", **facts)
        if response.status >= 500:
            return UnavailableError("not available", **facts)
        if code in {"incorrect_version", "client_outdated"}:
            return UnsupportedError("the instance does not serve this version of the API", **facts)
        if not code:
            return undocumented(response)
        if response.status == 422 and "already exists" in str(said.get("error_message")):
            return DuplicateError("another record has this key", **facts)
        return RejectedError(f"refused with {response.status}", **facts)

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        return f"{self.config.web_url}/#{self.kinds[kind].object}/{native_id}" if self.config.web_url else None


class _Whole(SugarCRM):
    """The same instance with its deleted records."""

    _deleted = True


def _second(moment: datetime | None) -> str:
    """Spell a time as a filter takes it: whole seconds, the next one where it has a part of one, for rows have none."""
    assert moment is not None
    whole = moment if not moment.microsecond else moment.replace(microsecond=0) + timedelta(seconds=1)
    return f"{whole.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _field(name: str, said: Row, labels: Mapping[str, str], dropdowns: Mapping[str, Any]) -> FieldMeta:
    listed = said.get("options")
    options = (dropdowns.get(listed) if isinstance(listed, str) else None) or {}
    return FieldMeta(
        name=name, path=name, type="FORMULA" if said.get("calculated") else _TYPES.get(said.get("type", ""), "TEXT"),
        label=(labels.get(said.get("vname", "")) or name).rstrip(":"), custom=name.endswith("_c"),
        writable=not (said.get("readonly") or said.get("calculated")), options={key: str(word) for key, word in options.items() if key},
    )  # fmt: skip


def _stages(labels: Mapping[str, str], forecasts: Row, dropdowns: Mapping[str, Any]) -> dict[str, Stage]:
    """Return the stages by their keys."""
    won, lost = forecasts.get("sales_stage_won") or _WON, forecasts.get("sales_stage_lost") or _LOST
    likely = dropdowns.get("sales_probability_dom") or {}

    def made(key: str, label: str) -> Stage:
        category: StageCategory = "WON" if key in won else "LOST" if key in lost else "OPEN"
        said = str(likely.get(key, ""))
        return Stage(
            id=key,
            name=label,
            category=category,
            pipeline=None,
            native=key,
            probability=int(said) / 100 if said.isdigit() else None,
        )

    return {key: made(key, label) for key, label in labels.items() if key}

"""Freshdesk, API v2.

Facts from a vendor help article (rate limits), public connectors' issues (paging, the 30-day window) and a third-party description of
the fields; error codes and the limits of search are general knowledge and unverified. Lists cannot be resumed in both directions at a
place in time (tickets have `updated_since` only, contacts no sort at all), so no kind is listed: records are found, read and related.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, ClassVar

from adapters.base import (
    Adapter,
    Api,
    Auth,
    Basic,
    Checked,
    FindKey,
    KindFacts,
    Learned,
    Live,
    Outcome,
    Related,
    Request,
    Response,
    Window,
    Write,
    answer_or_none,
    code_in,
    undocumented,
)
from adapters.changes import Changes, Delivery, Heard
from adapters.freshdesk_live import FEED, PUSH, changed_contacts, changed_tickets, heard
from adapters.writing import WriteVerb, one_by_one
from model.errors import (
    DuplicateError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row

_PAGE, _SEARCH_PAGE, _QUERY = 100, 30, 512
_LAG = 300.0  # seconds until a search shows what is new: "minutes", unverified
_WRITTEN: frozenset[WriteVerb] = frozenset({"create", "update", "delete"})
_FORBIDDEN = frozenset({"access_denied", "require_feature", "account_suspended"})  # under whatever status
_EVER = "1970-01-01T00:00:00Z"  # without it only tickets of the last 30 days are listed
_TYPES: Mapping[str, FieldType] = {
    "custom_number": "NUMBER", "custom_decimal": "NUMBER", "custom_checkbox": "BOOLEAN", "custom_date": "DATE", "custom_dropdown": "PICKLIST",
}  # fmt: skip
_TIMES: Mapping[str, Any] = {
    "native_id": {"path": "id", "convert": "id"},
    "created_at": {"path": "created_at", "convert": "datetime"},
    "updated_at": {"path": "updated_at", "convert": "datetime"},
}


class Freshdesk(Adapter):
    name = "freshdesk"
    label = "Freshdesk"
    api_version = "v2"
    evidence = "E2"
    shown_by = "tests/adapters/test_freshdesk_description.py"
    auth: ClassVar[Mapping[str, Auth]] = {"basic": Basic()}  # the API key is the user, the password is anything
    live = Live(
        push="rules that an administrator makes, for tickets only, which call us with a shared secret in a header",
        feed="tickets by updated_since, contacts by _updated_since, to the second: three minutes are read again; companies by nothing",
        deletes="lists of deleted tickets and contacts, where a merged contact shows as deleted; nothing names the one it went into",
        why="there is no API to subscribe, rules are limited to about a thousand calls an hour, and nothing is promised of delivery",
    )
    push = PUSH
    # Growth plan until the first answer tells better; per account.
    windows = (Window(name="minute", limit=200, period=60),)
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="contacts", feed=FEED, custom_prefix="custom_fields.", read_batch=1, find=frozenset({"email"}), find_batch=10,
            mapping={
                **_TIMES,
                "email": {"path": "email", "convert": "email"}, "emails": {"paths": ["email", "other_emails"], "convert": "emails"},
                "phone": {"path": "phone", "convert": "phone"}, "phones": {"paths": ["phone", "mobile"], "convert": "phones"},
                "name": {"path": "name", "convert": "text"},
                # One name: what follows the first space is taken as the surname.
                "given_name": {"path": "name", "convert": "first_word"}, "family_name": {"path": "name", "convert": "rest_of_words"},
                "title": {"path": "job_title", "convert": "text"}, "locale": "language", "account_id": {"path": "company_id", "convert": "id"},
            },
            writes={"email": "email", "phone": "phone", "name": "name", "title": "job_title", "locale": "language"},
            verbs=_WRITTEN, unique=frozenset({"email"}), links={"account": "company_id"}, lag=_LAG,
        ),
        "account": KindFacts(
            object="companies", custom_prefix="custom_fields.", read_batch=1,
            mapping={**_TIMES, "name": {"path": "name", "convert": "text"}, "domain": {"path": "domains", "convert": ["first", "domain"]}},
            writes={"name": "name", "domain": "domains"}, verbs=_WRITTEN,
        ),
        "ticket": KindFacts(
            object="tickets", feed=FEED, custom_prefix="custom_fields.", read_batch=1,
            mapping={
                **_TIMES,
                "subject": {"path": "subject", "convert": "text"}, "raw_status": {"path": "status", "convert": "id"},
                # From 6 on a team's own statuses follow.
                "status": {"path": "status", "convert": "id", "values": {"2": "OPEN", "3": "PENDING", "4": "SOLVED", "5": "CLOSED"}, "default": "UNKNOWN"},
                "priority": {"path": "priority", "convert": "id", "values": {"1": "LOW", "2": "NORMAL", "3": "HIGH", "4": "URGENT"}},
                "contact_id": {"path": "requester_id", "convert": "id"},
            },
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "ticket"), ("account", "contact")})

    async def check(self, api: Api) -> Checked:
        agent = (await api.send(Request(operation="check", path="/api/v2/agents/me"))).json()
        return Checked(account=self.config.base_url, name=agent.get("type"))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        word = {"contact": "contact", "account": "company", "ticket": "ticket"}[kind]
        found = (await api.send(Request(operation=f"{kind}.describe", path=f"/api/v2/{word}_fields"))).json()
        fields = [_field(each) for each in found]
        return ObjectType(name=self.kinds[kind].object, fields={field.name: field for field in fields})

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """One call an id: there is no batch."""
        return list(await asyncio.gather(*(self._one(api, kind, id) for id in ids)))

    async def _one(self, api: Api, kind: Kind, id: str) -> Row | None:
        asked = Request(operation=f"{kind}.read", path=f"/api/v2/{self.kinds[kind].object}/{id}")
        answer = await answer_or_none(api, asked)
        row: Row | None = answer.json() if answer is not None else None
        return None if row is None or row.get("deleted") else row

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """ceil(children / 100) lists a parent: the filter takes one id."""

        async def one(id: str) -> Related:
            if kind == "contact":
                return await self._listed(api, "account.contact", "contacts", [("company_id", id)], first)
            chosen = [("requester_id", id), ("updated_since", _EVER), ("order_by", "created_at"), ("order_type", "asc")]
            return await self._listed(api, "contact.ticket", "tickets", chosen, first)

        return list(await asyncio.gather(*(one(id) for id in ids)))

    async def _listed(self, api: Api, operation: str, object: str, chosen: Sequence[tuple[str, str]], first: int) -> Related:
        rows: list[Row] = []
        number = 1
        while True:
            params = [*chosen, ("per_page", str(_PAGE)), ("page", str(number))]
            answer = await api.send(Request(operation=operation, path=f"/api/v2/{object}", params=params))
            rows += answer.json()
            more = 'rel="next"' in answer.headers.get("link", "")  # the last page carries no link
            if not more or len(rows) > first:
                return Related(rows=rows[:first], more=more or len(rows) > first)
            number += 1

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """One search for as many addresses as 512 characters hold, about ten; its index lags by minutes.

        Secondary addresses and phones are not searched: only `email` is known to be a field of the search.
        """
        found = await asyncio.gather(*(self._search(api, query) for query in _queries(values)))
        return list({row["id"]: row for row in chain.from_iterable(found)}.values())

    async def _search(self, api: Api, query: str) -> list[Row]:
        rows: list[Row] = []
        number = 1
        while True:
            params = [("query", f'"{query}"'), ("page", str(number))]
            found = (await api.send(Request(operation="contact.find", path="/api/v2/search/contacts", params=params))).json()
            rows += found["results"]
            if len(rows) >= found["total"] or not found["results"]:
                return rows
            number += 1

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        if kind == "contact":
            return await changed_contacts(api, cursor, fields, now=now)
        if kind == "ticket":
            return await changed_tickets(api, cursor)
        raise UnsupportedError(f"freshdesk does not tell what {kind} records changed")

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """One call a record: there is no batch."""
        return await one_by_one(writes, lambda write: self._written(api, kind, write))

    async def _written(self, api: Api, kind: Kind, write: Write) -> Outcome:
        path = f"/api/v2/{self.kinds[kind].object}"
        if write.verb == "delete":
            # What is in the bin may be deleted again without a word.
            if await self._one(api, kind, write.native_id or "") is None:
                return Outcome(state="UNCHANGED", native_id=write.native_id)
            await api.send(Request(operation=f"{kind}.delete", method="DELETE", path=f"{path}/{write.native_id}"))
            return Outcome(state="APPLIED", native_id=write.native_id)
        method, path = ("PUT", f"{path}/{write.native_id}") if write.native_id else ("POST", path)
        asked = Request(operation=f"{kind}.{write.verb}", method=method, path=path, json=_body(write.row), safe=write.repeatable)
        row = (await api.send(asked)).json()
        return Outcome(state="APPLIED", native_id=str(row["id"]), created=method == "POST")

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return None
        body = response.json_or_none()
        codes = _codes(body)
        code = next(iter(codes), "")
        facts: dict[str, Any] = {"status": response.status, "upstream_code": code or None}
        if response.status == 429:
            return ThrottledError("too many calls", retry_after=response.retry_after, **facts)
        if response.status == 403 or code in _FORBIDDEN:
            return SourceForbiddenError(f"not allowed: {code}" if code else "not allowed", **facts)
        if response.status == 401 or code == "invalid_credentials":
            return TokenExpiredError("the API key is not accepted", **facts)
        if response.status >= 500:
            return UnavailableError("not available", retry_after=response.retry_after, **facts)
        if response.status == 404 and not response.body:
            return RejectedError("not found", **facts)
        if not isinstance(body, dict):
            return undocumented(response)
        if response.status == 409 or "duplicate_value" in codes:
            return DuplicateError("another record has this key", **facts)
        return RejectedError(f"refused: {code}" if code else f"refused with {response.status}", **facts)

    def learn(self, response: Response) -> Sequence[Learned]:
        total, remaining = response.number("x-ratelimit-total"), response.number("x-ratelimit-remaining")
        if total is None or remaining is None:
            return []
        return [Learned(window="minute", limit=total, remaining=remaining)]

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        return f"{self.config.web_url}/a/{self.kinds[kind].object}/{native_id}" if self.config.web_url else None


def _codes(body: object) -> list[str]:
    """Return the codes of a refusal: its own, or those of what validation found in each field."""
    if not isinstance(body, dict):
        return []
    errors = body.get("errors")
    told = [body, *(errors if isinstance(errors, list) else ())]
    return [code for each in told if isinstance(each, dict) and (code := code_in(each.get("code")))]


def _queries(values: Sequence[str]) -> Iterator[str]:
    """Yield searches of at most 512 characters, quotes included, that name all values."""
    terms: list[str] = []
    for value in values:
        term = f"email:'{value.replace(chr(39), '')}'"  # an address with a quote in it cannot be asked for
        if terms and len(" OR ".join([*terms, term])) + 2 > _QUERY:
            yield " OR ".join(terms)
            terms = []
        terms.append(term)
    if terms:
        yield " OR ".join(terms)


def _body(row: Row) -> Row:
    """Spell what is written as the API takes it: ids as numbers, domains as a list."""
    body = dict(row)
    if body.get("company_id") is not None:
        body["company_id"] = int(body["company_id"])
    if "domains" in body:
        body["domains"] = [body["domains"]] if body["domains"] else []
    return body


def _field(each: Row) -> FieldMeta:
    custom = not each.get("default", True)
    choices = each.get("choices") or []
    options = {str(choice): str(choice) for choice in choices} if isinstance(choices, list) else {}
    return FieldMeta(
        name=each["name"], path=f"custom_fields.{each['name']}" if custom else each["name"], type=_TYPES.get(each["type"], "TEXT"),
        label=each["label"], custom=custom, options=options,
    )  # fmt: skip

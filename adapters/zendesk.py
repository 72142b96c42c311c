"""Zendesk Support.

Facts from developer.zendesk.com: rate limits, users, organizations, tickets, search, OAuth. That terms of one property
are alternatives, and that requester: and email: take several, is the search reference's general rule; it was not tried
against Zendesk itself. An update for a version (`safe_update`) compares whole seconds: two changes within one are one version.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any, ClassVar

from adapters.base import (
    Adapter,
    Api,
    Auth,
    Basic,
    Changes,
    Checked,
    Delivery,
    FindKey,
    Heard,
    KindFacts,
    Learned,
    Live,
    OAuth,
    OrderField,
    Outcome,
    Page,
    Related,
    Request,
    Response,
    Scan,
    Watch,
    Window,
    Write,
    batches,
    code_in,
    undocumented,
)
from adapters.writing import WriteVerb, one_by_one
from adapters.zendesk_live import EXPORT, FEED, ORGANIZATIONS, PUSH, changes, customer, heard, unwatched, watched
from adapters.zendesk_writing import written
from model.errors import (
    DuplicateError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    StaleVersionError,
    ThrottledError,
    TokenExpiredError,
    UnavailableError,
    UnsupportedError,
)
from model.records import FieldMeta, FieldType, Kind, ObjectType, Row

_MANY, _PAGE, _SEARCH_CAP = 100, 100, 1000
_VALUES = 30  # e-mail addresses or numbers per search: keeps the URL below 2,000 characters
_TYPES: Mapping[str, FieldType] = {
    "text": "TEXT", "textarea": "TEXT", "regexp": "TEXT", "integer": "NUMBER", "decimal": "NUMBER", "checkbox": "BOOLEAN", "date": "DATE",
    "dropdown": "PICKLIST", "tagger": "PICKLIST", "multiselect": "MULTI_PICKLIST", "lookup": "REFERENCE",
}  # fmt: skip
_TIMES: Mapping[str, Any] = {
    "native_id": {"path": "id", "convert": "id"},
    "created_at": {"path": "created_at", "convert": "datetime"},
    "updated_at": {"path": "updated_at", "convert": "datetime"},
}
_BOTH: frozenset[OrderField] = frozenset({"created", "updated"})
_WRITTEN: frozenset[WriteVerb] = frozenset({"create", "update", "delete"})
_LAG = 300.0  # seconds; the search index lags "up to a few minutes"
_OF_ONE = "single unique"  # how the limit of one record is told from that of the account, in plain text


class Zendesk(Adapter):
    name = "zendesk"
    label = "Zendesk Support"
    api_version = "v2"
    evidence = "E3"
    shown_by = "tests/conformance/test_zendesk_client.py"
    auth: ClassVar[Mapping[str, Auth]] = {
        "oauth": OAuth(token_path="/oauth/tokens", lifetime=7200, body="json"),
        "basic": Basic(user_suffix="/token"),
    }
    live = Live(
        push="webhooks of users, organizations and tickets, signed with HMAC-SHA256 over the time and the raw body; accounts without ticket events need a trigger for tickets",
        feed="incremental exports by cursor of users and tickets, 10 calls a minute; organizations by time only",
        deletes="the exports and webhooks tell deleted users and tickets; merged users are told as deleted; deleted organizations by webhook only",
        why="webhooks come in no order and may be lost, nobody says how soon; the exports leave out the last minute",
    )  # fmt: skip
    push = PUSH
    windows = (
        Window(name="minute", limit=700, period=60),
        Window(name=EXPORT, limit=10, period=61, kind="rolling", every_call=False),  # a second more: calls take time to arrive
    )
    kinds: ClassVar[Mapping[Kind, KindFacts]] = {
        "contact": KindFacts(
            object="users", custom_prefix="user_fields.", read_batch=_MANY, page=_PAGE, find=frozenset({"email", "phone"}), find_batch=_VALUES, unique=frozenset({"email"}), orders=_BOTH,
            mapping={
                **_TIMES,
                "email": {"path": "email", "convert": "email"}, "emails": {"paths": ["email"], "convert": "emails"},
                "phone": {"path": "phone", "convert": "phone"}, "phones": {"paths": ["phone"], "convert": "phones"},
                "name": {"path": "name", "convert": "text"},
                # Zendesk keeps one name: what follows the first space is taken as the surname.
                "given_name": {"path": "name", "convert": "first_word"}, "family_name": {"path": "name", "convert": "rest_of_words"},
                "locale": "locale", "account_id": {"path": "organization_id", "convert": "id"},
            },
            writes={"email": "email", "phone": "phone", "name": "name", "locale": "locale"}, verbs=_WRITTEN | {"upsert"}, upsert_by=frozenset({"email"}),
            links={"account": "organization_id"}, lag=_LAG, feed=FEED,
        ),
        "account": KindFacts(
            object="organizations", custom_prefix="organization_fields.", read_batch=_MANY, page=_PAGE, orders=_BOTH,
            mapping={**_TIMES, "name": {"path": "name", "convert": "text"}, "domain": {"path": "domain_names", "convert": ["first", "domain"]}},
            writes={"name": "name", "domain": "domain_names"}, verbs=_WRITTEN, lag=_LAG, feed=ORGANIZATIONS,
        ),
        "ticket": KindFacts(
            object="tickets", read_batch=_MANY, page=_PAGE, orders=_BOTH,
            mapping={
                **_TIMES,
                "subject": {"path": "subject", "convert": "text"}, "raw_status": "status",
                "status": {
                    "path": "status", "default": "UNKNOWN",
                    "values": {"new": "NEW", "open": "OPEN", "pending": "PENDING", "hold": "ON_HOLD", "solved": "SOLVED", "closed": "CLOSED", "deleted": "DELETED"},
                },
                "priority": {"path": "priority", "convert": "upper", "default": "NORMAL"},
                "contact_id": {"path": "requester_id", "convert": "id"},
            },
            writes={
                "subject": "subject",
                "status": {"path": "status", "values": {"NEW": "new", "OPEN": "open", "PENDING": "pending", "ON_HOLD": "hold", "SOLVED": "solved", "CLOSED": "closed"}},
                "priority": {"path": "priority", "values": {"LOW": "low", "NORMAL": "normal", "HIGH": "high", "URGENT": "urgent"}},
            },
            verbs=_WRITTEN, links={"contact": "requester_id"}, if_version=True, lag=_LAG, feed=FEED,
        ),
    }  # fmt: skip
    relations = frozenset({("contact", "ticket"), ("account", "contact")})

    @property
    def _root(self) -> str:
        return f"/api/{self.config.api_version or self.api_version}"

    async def check(self, api: Api) -> Checked:
        user = (await api.send(Request(operation="check", path=f"{self._root}/users/me"))).json()["user"]
        return Checked(account=self.config.base_url, name=user.get("role"))

    async def describe(self, api: Api, kind: Kind) -> ObjectType:
        word = {"contact": "user", "account": "organization", "ticket": "ticket"}[kind]
        found = (await api.send(Request(operation=f"{kind}.describe", path=f"{self._root}/{word}_fields"))).json()
        fields = (_field(each, self.kinds[kind].custom_prefix) for each in found[f"{word}_fields"])
        return ObjectType(name=self.kinds[kind].object, fields={field.name: field for field in fields})

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]:
        """ceil(ids / 100) show_many calls; what is missing is left out of them. Agents are users, and no contacts."""
        name = self.kinds[kind].object
        asked = [
            api.send(Request(operation=f"{kind}.read", path=f"{self._root}/{name}/show_many", params=[("ids", ",".join(some))]))
            for some in batches(ids, _MANY)
        ]
        rows = chain.from_iterable(answer.json()[name] for answer in await asyncio.gather(*asked))
        found = {str(row["id"]): row for row in rows if customer(kind, row)}
        return [found.get(id) for id in ids]

    async def related(
        self, api: Api, kind: Kind, of: Kind, ids: Sequence[str], fields: Sequence[str], first: int
    ) -> list[Related]:
        """One search per 100 parents and 100 children.

        There is no batch of tickets by user. A search by several requesters costs one call where singles cost one per
        parent; a group with more results than a search returns (1,000) is halved.
        """
        type_, word, tie = (
            ("ticket", "requester", "requester_id") if kind == "ticket" else ("user", "organization", "organization_id")
        )
        parts = await asyncio.gather(*(self._children(api, f"{of}.{kind}", type_, word, some) for some in batches(ids, _MANY)))
        found: dict[str, list[Row]] = {}
        for row in chain.from_iterable(parts):
            found.setdefault(str(row[tie]), []).append(row)
        return [Related(rows=found.get(id, [])) for id in ids]

    async def _children(self, api: Api, operation: str, type_: str, word: str, ids: Sequence[str]) -> list[Row]:
        query = f"type:{type_} {' '.join(f'{word}:{id}' for id in ids)}"
        rows, count = await self._search(api, operation, query, "created_at", descending=False, page=1)
        if count > _SEARCH_CAP and len(ids) > 1:
            half = len(ids) // 2
            parts = await asyncio.gather(
                *(self._children(api, operation, type_, word, some) for some in (ids[:half], ids[half:]))
            )
            return list(chain.from_iterable(parts))
        pages = range(2, -(-min(count, _SEARCH_CAP) // _PAGE) + 1)
        more = await asyncio.gather(
            *(self._search(api, operation, query, "created_at", descending=False, page=page) for page in pages)
        )
        return [*rows, *chain.from_iterable(found for found, _ in more)]

    async def find(self, api: Api, kind: Kind, key: FindKey, values: Sequence[str], fields: Sequence[str]) -> list[Row]:
        """ceil(values / 30) user searches, which also match secondary e-mail identities."""
        asked = (
            self._found(api, kind, f"role:end-user {' '.join(f'{key}:{value}' for value in some)}")
            for some in batches(values, _VALUES)
        )
        return list({row["id"]: row for row in chain.from_iterable(await asyncio.gather(*asked))}.values())

    async def _found(self, api: Api, kind: Kind, query: str) -> list[Row]:
        rows: list[Row] = []
        path: str | None = f"{self._root}/users/search"
        params = [("query", query), ("per_page", str(_PAGE))]
        while path is not None:
            answer = (await api.send(Request(operation=f"{kind}.find", path=path, params=params))).json()
            rows += answer["users"]
            path, params = answer.get("next_page"), []
        return rows

    async def scan(self, api: Api, kind: Kind, scan: Scan) -> Page:
        """One search a page, more where many records share a second.

        Times are whole seconds and search states nothing about ties: the page starts again at the second it ended in, and
        the group that crosses its end is read to its end and sorted by id here. Each page is a search of its own, so the
        cap of 1,000 results ends only a list with more records than that in one second.
        """
        type_ = {"contact": "user", "account": "organization", "ticket": "ticket"}[kind]
        terms = [f"type:{type_}", *(["role:end-user"] if kind == "contact" else [])]
        if scan.after is not None:
            terms.append(f"{scan.order}{'<=' if scan.descending else '>='}{_second(scan.after.at)}")
        if scan.updated_since is not None:
            terms.append(f"updated>={_second(scan.updated_since)}")
        if scan.updated_before is not None:
            terms.append(f"updated<{_second(scan.updated_before)}")
        column = f"{scan.order}_at"
        rows: list[Row] = []
        for page in range(1, _SEARCH_CAP // _PAGE + 1):
            more, count = await self._search(api, f"{kind}.scan", " ".join(terms), column, descending=scan.descending, page=page)
            rows += more
            if len(rows) >= count or not more:
                return Page(rows=self._sorted(rows, column, scan), end=True)
            whole = next((at + 1 for at in range(len(rows) - 1, -1, -1) if rows[at][column] != rows[-1][column]), 0)
            kept = self._sorted(rows[:whole], column, scan)
            if kept:
                return Page(rows=kept, end=False)
        raise UnsupportedError(f"more than {_SEARCH_CAP} {kind} records share one second")

    def _sorted(self, rows: Sequence[Row], column: str, scan: Scan) -> list[Row]:
        ordered = sorted(rows, key=lambda row: (row[column], row["id"]), reverse=scan.descending)
        if scan.after is None:
            return ordered
        edge = (_second(scan.after.at), int(scan.after.native_id))
        if scan.descending:
            return [row for row in ordered if (row[column], row["id"]) < edge]
        return [row for row in ordered if (row[column], row["id"]) > edge]

    async def _search(
        self, api: Api, operation: str, query: str, sort: str, *, descending: bool, page: int
    ) -> tuple[list[Row], int]:
        params = [
            ("query", query),
            ("sort_by", sort),
            ("sort_order", "desc" if descending else "asc"),
            ("per_page", str(_PAGE)),
            ("page", str(page)),
        ]
        found = (await api.send(Request(operation=operation, path=f"{self._root}/search", params=params))).json()
        return found["results"], found["count"]

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """One call a record; one before the delete of a user and before a new domain; two after a user's address changed."""
        path = f"{self._root}/{self.kinds[kind].object}"
        return await one_by_one(writes, lambda write: written(api, kind, path, write))

    async def changes(self, api: Api, kind: Kind, cursor: str | None, fields: Sequence[str], *, now: datetime) -> Changes:
        return await changes(self, api, self._root, kind, cursor, fields)

    @classmethod
    def events(cls, delivery: Delivery, secrets: Sequence[str]) -> Heard:
        return heard(delivery, secrets)

    async def watch(self, api: Api, url: str, secret: str) -> list[Watch]:
        return await watched(api, self._root, url)

    async def unwatch(self, api: Api, url: str) -> int:
        return await unwatched(api, self._root, url)

    def classify(self, response: Response) -> SourceError | None:
        if response.status < 300:
            return None
        body = response.json_or_none()
        said = body.get("error") if isinstance(body, dict) else None
        code = code_in(said.get("title") if isinstance(said, dict) else said)  # `error` is text or an object
        facts: dict[str, Any] = {"status": response.status, "upstream_code": code or None}
        if response.status == 429:
            shared = _OF_ONE not in response.body[:500].decode(errors="replace")  # the body may be plain text
            return ThrottledError("too many calls", status=429, retry_after=response.retry_after, shared=shared)
        if response.status == 401:
            return TokenExpiredError("the credentials are not accepted", **facts)
        if response.status == 403:
            return SourceForbiddenError("not allowed", **facts)
        if response.status >= 500:
            return UnavailableError("not available", status=response.status, retry_after=response.retry_after)
        if not isinstance(body, dict):
            return undocumented(response)
        if response.status == 409 and code == "UpdateConflict":
            return StaleVersionError("the ticket was changed since", **facts)
        if "DuplicateValue" in _problems(body):
            return DuplicateError("another record has this key", **facts)
        return RejectedError(f"refused: {code}" if code else f"refused with {response.status}", **facts)

    def learn(self, response: Response) -> Sequence[Learned]:
        remaining, limit = response.number("x-rate-limit-remaining"), response.number("x-rate-limit")
        if remaining is None or limit is None:
            return []
        return [Learned(window="minute", limit=limit, remaining=remaining)]

    def web_url(self, kind: Kind, native_id: str) -> str | None:
        place = {"contact": "users", "account": "organizations", "ticket": "tickets"}.get(kind)
        return f"{self.config.web_url}/agent/{place}/{native_id}" if self.config.web_url and place else None


def _second(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _problems(body: Mapping[str, Any]) -> set[str]:
    """Return the codes of what a validation found, of all fields."""
    details = body.get("details")
    told = chain.from_iterable(each for each in details.values() if isinstance(each, list)) if isinstance(details, dict) else ()
    return {str(each.get("error")) for each in told if isinstance(each, dict)}


def _field(each: Row, prefix: str) -> FieldMeta:
    options = {option["value"]: option["name"] for option in each.get("custom_field_options") or ()}
    # Ticket fields have a number and no key, and stand in a list on the ticket.
    name = each.get("key") or str(each["id"])
    path = f"{prefix}{name}" if prefix else f"custom_fields[id={each['id']}].value"
    custom = bool(each.get("key")) or bool(each.get("removable", True))
    return FieldMeta(
        name=name, path=path, type=_TYPES.get(each["type"], "TEXT"), label=each["title"], custom=custom, options=options
    )

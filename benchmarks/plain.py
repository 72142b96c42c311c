"""The same graph in plain Strawberry: what a good engineer writes in a day with the vendors' documents open.

Every customer asks for its own deals, orders and tickets, all at once; a refused call waits as the vendor says and is sent
again. No batches over customers, no projection but the obvious, no cache, no word on what each source did.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import strawberry
from strawberry.types import Info

_SHOPIFY = "/shopify/admin/api/2026-07/graphql.json"
_SALESFORCE = "/salesforce/services/data/v60.0/query"


@dataclass
class Vendors:
    """One HTTP client and the tokens."""

    http: httpx.AsyncClient
    tokens: Mapping[str, str]
    parallel: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(16))

    async def call(self, system: str, method: str, path: str, **what: Any) -> Any:
        header, prefix = ("X-Shopify-Access-Token", "") if system == "shopify" else ("Authorization", "Bearer ")
        while True:
            async with self.parallel:
                answer = await self.http.request(method, path, headers={header: f"{prefix}{self.tokens[system]}"}, **what)
            body = answer.json() if answer.content else {}
            throttled = isinstance(body, dict) and any(
                (each.get("extensions") or {}).get("code") == "THROTTLED" for each in body.get("errors") or ()
            )
            if answer.status_code == 429 or throttled:
                await asyncio.sleep(float(answer.headers.get("retry-after") or 1))
                continue
            answer.raise_for_status()
            return body


@strawberry.type
class Deal:
    name: str


@strawberry.type
class Order:
    number: str


@strawberry.type
class Ticket:
    subject: str


PlainInfo = Info[Vendors, None]


async def _orders(ids: Mapping[str, str], vendors: Vendors, first: int) -> list[Order]:
    query = (
        "query($id: ID!, $first: Int!) { customer(id: $id) { orders(first: $first, sortKey: CREATED_AT) { nodes { name } } } }"
    )
    variables = {"id": f"gid://shopify/Customer/{ids['shopify']}", "first": first}
    found = await vendors.call("shopify", "POST", _SHOPIFY, json={"query": query, "variables": variables})
    return [Order(number=each["name"]) for each in found["data"]["customer"]["orders"]["nodes"]]


async def _hubspot(kind: str, contact: str, vendors: Vendors, properties: list[str]) -> list[dict[str, Any]]:
    links = await vendors.call("hubspot", "GET", f"/hubspot/crm/v4/objects/contacts/{contact}/associations/{kind}")
    if not links["results"]:
        return []
    body = {"inputs": [{"id": str(each["toObjectId"])} for each in links["results"]], "properties": properties}
    found = await vendors.call("hubspot", "POST", f"/hubspot/crm/v3/objects/{kind}/batch/read", json=body)
    rows: list[dict[str, Any]] = sorted(found["results"], key=lambda each: each["createdAt"])
    return [each["properties"] for each in rows]


async def _opportunities(contact: str, vendors: Vendors) -> list[Deal]:
    soql = f"SELECT Opportunity.Name FROM OpportunityContactRole WHERE ContactId = '{contact}' ORDER BY Opportunity.CreatedDate"
    found = await vendors.call("salesforce", "GET", _SALESFORCE, params={"q": soql})
    return [Deal(name=each["Opportunity"]["Name"]) for each in found["records"]]


async def _requested(user: str, vendors: Vendors) -> list[Ticket]:
    found = await vendors.call("zendesk", "GET", f"/zendesk/api/v2/users/{user}/tickets/requested.json")
    return [Ticket(subject=each["subject"]) for each in found["tickets"]]


@strawberry.type
class Customer:
    name: str
    email: str | None
    ids: strawberry.Private[dict[str, str]]

    @strawberry.field
    async def deals(self, info: PlainInfo, first: int) -> list[Deal]:
        parts: list[Awaitable[list[Deal]]] = []
        if contact := self.ids.get("hubspot"):
            parts.append(self._hubspot_deals(contact, info.context))
        if contact := self.ids.get("salesforce"):
            parts.append(_opportunities(contact, info.context))
        return [deal for some in await asyncio.gather(*parts) for deal in some][:first]

    @strawberry.field
    async def orders(self, info: PlainInfo, first: int) -> list[Order]:
        return await _orders(self.ids, info.context, first) if "shopify" in self.ids else []

    @strawberry.field
    async def tickets(self, info: PlainInfo, first: int) -> list[Ticket]:
        parts: list[Awaitable[list[Ticket]]] = []
        if contact := self.ids.get("hubspot"):
            parts.append(self._hubspot_tickets(contact, info.context))
        if user := self.ids.get("zendesk"):
            parts.append(_requested(user, info.context))
        return [ticket for some in await asyncio.gather(*parts) for ticket in some][:first]

    async def _hubspot_deals(self, contact: str, vendors: Vendors) -> list[Deal]:
        return [Deal(name=each["dealname"]) for each in await _hubspot("deals", contact, vendors, ["dealname"])]

    async def _hubspot_tickets(self, contact: str, vendors: Vendors) -> list[Ticket]:
        return [Ticket(subject=each["subject"]) for each in await _hubspot("tickets", contact, vendors, ["subject"])]


@dataclass
class _Person:
    system: str
    id: str
    name: str
    email: str | None
    created: datetime


async def _hubspot_people(vendors: Vendors, count: int) -> list[_Person]:
    body = {
        "sorts": [{"propertyName": "createdate", "direction": "ASCENDING"}],
        "limit": count,
        "properties": ["email", "firstname", "lastname"],
    }
    found = await vendors.call("hubspot", "POST", "/hubspot/crm/v3/objects/contacts/search", json=body)
    return [
        _Person("hubspot", row["id"], f"{row['properties']['firstname']} {row['properties']['lastname']}", row["properties"].get("email"), _time(row["createdAt"]))
        for row in found["results"]
    ]  # fmt: skip


async def _salesforce_people(vendors: Vendors, count: int) -> list[_Person]:
    soql = f"SELECT Id, Name, Email, CreatedDate FROM Contact ORDER BY CreatedDate LIMIT {count}"
    found = await vendors.call("salesforce", "GET", _SALESFORCE, params={"q": soql})
    return [_Person("salesforce", row["Id"], row["Name"], row["Email"], _time(row["CreatedDate"])) for row in found["records"]]


async def _shopify_people(vendors: Vendors, count: int) -> list[_Person]:
    query = "query($first: Int!) { customers(first: $first, sortKey: CREATED_AT) { nodes { id displayName createdAt defaultEmailAddress { emailAddress } } } }"
    found = await vendors.call("shopify", "POST", _SHOPIFY, json={"query": query, "variables": {"first": count}})
    return [
        _Person("shopify", row["id"].rsplit("/", 1)[-1], row["displayName"], (row["defaultEmailAddress"] or {}).get("emailAddress"), _time(row["createdAt"]))
        for row in found["data"]["customers"]["nodes"]
    ]  # fmt: skip


async def _zendesk_people(vendors: Vendors, count: int) -> list[_Person]:
    params = {"query": "type:user role:end-user", "sort_by": "created_at", "sort_order": "asc", "per_page": count}
    found = await vendors.call("zendesk", "GET", "/zendesk/api/v2/search.json", params=params)
    return [_Person("zendesk", str(row["id"]), row["name"], row["email"], _time(row["created_at"])) for row in found["results"]]


_PEOPLE: tuple[Callable[[Vendors, int], Awaitable[list[_Person]]], ...] = (
    _hubspot_people, _salesforce_people, _shopify_people, _zendesk_people,
)  # fmt: skip


@strawberry.type
class Query:
    @strawberry.field
    async def customers(self, info: PlainInfo, first: int) -> list[Customer]:
        parts = await asyncio.gather(*(people(info.context, first) for people in _PEOPLE))
        merged: dict[str, Customer] = {}
        for person in sorted((person for some in parts for person in some), key=lambda each: each.created):
            key = person.email.lower() if person.email else f"{person.system}/{person.id}"
            customer = merged.setdefault(key, Customer(name=person.name, email=person.email, ids={}))
            customer.ids.setdefault(person.system, person.id)
        return list(merged.values())[:first]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00").replace("+0000", "+00:00"))


schema = strawberry.Schema(Query)

"""Freshdesk's requests and rows are part of the description that others have made of its API: the vendor publishes none."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import orjson
import pytest

from adapters.base import Write
from sources.source import Source
from tests.adapters.noted import Noted, Sent, System, system
from tests.specifications import digest

ADA = "ada.king@northwind.example"
# What the sheet says and the description, made from examples, does not have.
PARAMETERS = {"/search/contacts": {"page"}}
COLUMNS = {
    "contacts": {"deleted", "other_companies", "unique_external_id", "view_all_tickets"}, "companies": set(), "tickets": {"deleted"},
}  # fmt: skip
BESIDE = {"/agents/me", "/contact_fields", "/company_fields", "/ticket_fields"}  # paths it leaves out


@pytest.fixture(scope="module")
def desk() -> Iterator[System]:
    with system("freshdesk") as found:
        yield found


def test_requests_and_rows_are_part_of_the_description(desk: System) -> None:
    paths = digest("freshdesk", "freshdesk-v2.digest.json")["paths"]
    account = str(next(iter(desk.dialect.tables["account"]))["id"])
    person = str(next(iter(desk.dialect.tables["contact"]))["id"])

    async def work(source: Source, api: Noted) -> Sent:
        adapter = source.adapter
        await adapter.check(api)
        for kind in adapter.kinds:
            await adapter.describe(api, kind)
            await adapter.read(api, kind, [str(row["id"]) for row in desk.dialect.tables[kind]][:2], [])
        await adapter.find(api, "contact", "email", [ADA], [])
        await adapter.related(api, "ticket", "contact", [person], [], 5)
        await adapter.related(api, "contact", "account", [account], [], 5)
        rows: dict[Any, dict[str, Any]] = {
            "contact": {
                "name": "Brand New", "email": "new@people.example", "phone": "+12125550123", "job_title": "Buyer", "language": "en", "company_id": account,
                "custom_fields": {"cf_seats": 5},
            },
            "account": {"name": "Brand New", "domains": "new.example"},
        }  # fmt: skip
        for kind, row in rows.items():
            [made] = await adapter.write(api, kind, [Write(verb="create", row=row)])
            await adapter.write(api, kind, [Write(verb="update", native_id=made.native_id, row=row)])
            await adapter.write(api, kind, [Write(verb="delete", native_id=made.native_id)])
        return api.sent

    sent = desk.run(work)

    assert len(sent) >= 15
    for request, response in sent:
        path = request.path.removeprefix("/api/v2")
        if path in BESIDE:
            continue
        object = path.split("/")[1]
        singular = {"contacts": "contact", "companies": "company", "tickets": "ticket"}.get(object, "")
        template = f"/{object}/{{{singular}_id}}" if path.rsplit("/", 1)[-1].isdigit() else path
        said = paths[template][request.method.lower()]
        assert {name for name, _ in request.params} <= {each["name"] for each in said["params"]} | PARAMETERS.get(
            template, set()
        ), path
        if request.json is not None:
            assert set(request.json) <= set(said["body"]["schema"]["props"]), path  # type: ignore[call-overload]
        body = orjson.loads(response.body) if response.body else None
        rows = body if isinstance(body, list) else body["results"] if isinstance(body, dict) and "results" in body else [body]
        of = "contacts" if object == "search" else object
        described = paths[f"/{of}"]["get"]["responses"]["200"]["schema"]["items"]["props"]
        for row in rows:
            assert row is None or row.keys() <= described.keys() | COLUMNS[of], (path, row.keys() - described.keys())
    assert (
        unquote(next(value for request, _ in sent for name, value in request.params if name == "query")) == f"\"email:'{ADA}'\""
    )

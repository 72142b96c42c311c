"""What the adapter sends to Zoho and what the sandbox answers, held against the published description of API v8."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from adapters.base import Config, Request, Response, Scan, Write
from adapters.zoho import Zoho
from tests.adapters.zoho_org import Org, Recorded, served_org
from tests.specifications import digest


@pytest.fixture
def org() -> Iterator[Org]:
    with served_org() as found:
        yield found


def _everything(org: Org) -> Recorded:
    """Return what all verbs sent, and what came back."""
    adapter = Zoho(Config(source="zoho", base_url=org.address))
    with org.client() as http:

        def answer(request: Request) -> Response:
            found = http.request(
                request.method, f"{org.address}{request.path}", params=list(request.params), json=request.json if request.json is not None else None,
                headers=dict(request.headers),
            )  # fmt: skip
            return Response(status=found.status_code, headers=dict(found.headers), body=found.content)

        api = Recorded(answer, adapter)
        asyncio.run(_use(adapter, api))
    return api


async def _use(adapter: Zoho, api: Recorded) -> None:
    await adapter.check(api)
    for kind, facts in adapter.kinds.items():
        if not facts.orders:
            continue
        fields = ["Last_Name", "Email", "Deal_Name", "Account_Name.id"]
        page = await adapter.scan(api, kind, Scan(size=20, fields=fields))
        ids = [row["id"] for row in page.rows]
        await adapter.read(api, kind, [*ids, "1"], fields)
        if facts.find:
            [key] = facts.find
            await adapter.find(api, kind, key, ["ada.king@northwind.example" if key == "email" else "northwind.example"], fields)
        for of, child in adapter.relations:
            if of == kind:
                await adapter.related(api, child, of, ids[:3], fields, 5)
    await adapter.read(api, "owner", ["5540231000000000001"], [])
    [object] = await adapter.objects(api)
    await adapter.scan_custom(api, object, after=None, size=5, fields=["Seats"])
    [contact, other] = await adapter.write(
        api,
        "contact",
        [
            Write(verb="create", row={"Last_Name": "A", "Email": "a@brandnew.example"}),
            Write(verb="create", row={"Last_Name": "B"}),
        ],
    )
    writes = [
        Write(verb="upsert", match="email", row={"Last_Name": "C", "Email": "a@brandnew.example"}), Write(verb="update", native_id=other.native_id, row={"Title": "CEO"}),
        Write(verb="update", native_id="1", row={"Title": "CEO"}), Write(verb="create", row={}), Write(verb="create", row={"Last_Name": "D", "Email": "?"}),
    ]  # fmt: skip
    await adapter.write(api, "contact", writes)
    links: Any = {"contact": [contact.native_id, other.native_id]}
    await adapter.write(api, "deal", [Write(verb="create", row={"Deal_Name": "D", "Stage": "Qualification"}, links=links)])
    await adapter.write(api, "contact", [Write(verb="delete", native_id=other.native_id)])


SHAPES = ("coql", "fields", "layouts", "modules", "org", "pipeline", "record", "related_records", "users")


def _operations(shapes: Sequence[str]) -> list[tuple[str, re.Pattern[str], dict[str, Any]]]:
    return [
        (each["method"], re.compile(re.sub(r"\{\w+\}", "[^/]+", each["path"])), each)
        for shape in shapes
        for each in digest("zoho", f"{shape}.shape.json")["operations"]
    ]


def test_requests_are_part_of_the_published_description(org: Org) -> None:
    operations = _operations(SHAPES)
    api = _everything(org)

    for request in api.requests:
        fitting = [said for method, path, said in operations if method == request.method and path.fullmatch(request.path)]
        assert fitting, f"{request.method} {request.path}"
        known = [{each["name"] for each in said.get("params", ()) if each["in"] == "query"} for said in fitting]
        assert any({name for name, _ in request.params} <= names for names in known), f"{request.method} {request.path}"
        needed = [
            {each["name"] for each in said.get("params", ()) if each["in"] == "query" and each.get("required")}
            for said in fitting
        ]
        assert any(names <= {name for name, _ in request.params} for names in needed)
    wrapper = digest("zoho", "record.shape.json")["schemas"]["Body_Wrapper"]["properties"]
    bodies = [each.json for each in api.requests if isinstance(each.json, dict) and "data" in each.json]
    assert len(bodies) > 5
    assert all(body.keys() <= wrapper.keys() for body in bodies)


def test_answers_are_part_of_the_published_description(org: Org) -> None:
    record = digest("zoho", "record.shape.json")["schemas"]
    api = _everything(org)
    shapes = {
        "fields": digest("zoho", "fields.shape.json")["schemas"]["fields"]["properties"], "modules": digest("zoho", "modules.shape.json")["schemas"]["modules"]["properties"],
        "users": digest("zoho", "users.shape.json")["schemas"]["users"]["properties"], "org": digest("zoho", "org.shape.json")["schemas"]["Org"]["properties"],
        "pipeline": digest("zoho", "pipeline.shape.json")["schemas"]["pipeline"]["properties"], "layouts": digest("zoho", "layouts.shape.json")["schemas"]["layouts"]["properties"],
    }  # fmt: skip
    seen: set[str] = set()

    for response in api.responses:
        if not response.body:
            continue
        body = response.json()
        assert body.get("info", {}).keys() <= record["Info"]["properties"].keys() | {"previous_page_token"}
        for name, properties in shapes.items():
            for row in body.get(name, ()):
                seen.add(name)
                assert row.keys() <= properties.keys(), name
        for row in body.get("data", ()):
            verdict = record["Success_Response" if row.get("status") == "success" else "API_Exception"]["properties"]
            if row.get("status") in {"success", "error"} and "message" in row:
                seen.add(row["status"])
                assert row["code"] in verdict["code"]["enum"]
                assert row["message"] in {*verdict["message"]["enum"], "relation added"}, row
    assert seen == {*shapes, "success", "error"}

"""What the Magento adapter sends, and what the sandbox answers, held against the vendor's OpenAPI description of 2.4.8.

The description leaves out `fields` (an option of every call) and the metadata of attributes.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from adapters.base import Config, Position, Scan
from adapters.magento import Magento
from adapters.wire import Request, Response
from adapters.writing import Write
from model.records import Kind, ObjectType
from sandbox.app import Sandbox, server
from sandbox.magento import ADMIN, PASSWORD
from tests.specifications import digest
from tests.world import served

NOT_DESCRIBED = {"/V1/attributeMetadata/customer"}
PATHS: dict[str, list[str]] = {
    "contact": [
        "id", "created_at", "updated_at", "email", "firstname", "lastname", "addresses[default_billing=True].telephone",
        "custom_attributes[attribute_code=visits].value",
    ],
    "order": [
        "entity_id", "created_at", "updated_at", "increment_id", "state", "status", "grand_total", "order_currency_code", "customer_id", "items.sku",
        "items.order_currency_code",
    ],
}  # fmt: skip


@dataclass
class Wire:
    """Sends what an adapter asks for, and keeps it beside the answer."""

    adapter: Magento
    http: httpx.Client
    heard: list[tuple[Request, Any]] = field(default_factory=list)

    async def send(self, request: Request) -> Response:
        got = self.http.request(request.method, request.path, params=list(request.params), json=request.json)
        answer = Response(status=got.status_code, headers=dict(got.headers), body=got.content)
        if (fault := self.adapter.classify(answer)) is not None:
            raise fault
        self.heard.append((request, answer.json()))
        return answer

    async def described(self, kind: Kind) -> ObjectType:
        return await self.adapter.describe(self, kind)


class Described:
    def __init__(self, document: Any) -> None:
        self._document = document

    def operation(self, method: str, path: str) -> tuple[str, Any]:
        """Return the template and the operation of a call.

        Raises:
            AssertionError: the vendor has no such call.
        """
        for template, operations in self._document["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", r"\\d+", template), path) and method.lower() in operations:
                return template, operations[method.lower()]
        raise AssertionError(f"there is no {method} {path}")

    def faults(self, value: Any, schema: Any, where: str) -> Iterator[str]:
        """Yield what in a value the schema does not know. Nothing is said of null: the vendor's PHP sends it anywhere."""
        if "$ref" in schema:
            schema = self._document["definitions"][schema["$ref"].rsplit("/", 1)[-1]]
        if value is None:
            return
        kind = schema.get("type")
        if kind == "object" or "properties" in schema:
            properties = schema.get("properties", {})
            if not isinstance(value, dict):
                yield f"{where} is no object"
                return
            for name, inner in value.items():
                if name not in properties:
                    yield f"{where}.{name} is not described"
                else:
                    yield from self.faults(inner, properties[name], f"{where}.{name}")
        elif kind == "array":
            if not isinstance(value, list):
                yield f"{where} is no array"
                return
            for inner in value:
                yield from self.faults(inner, schema["items"], f"{where}[]")
        elif kind is not None and not _fits(value, kind):
            yield f"{where} is no {kind}"


@dataclass(frozen=True, slots=True)
class Heard:
    described: Described
    calls: Sequence[tuple[Request, Any]]
    http: httpx.Client


@pytest.fixture(scope="module")
def document() -> Described:
    return Described(digest("magento", "magento-admin-subset-2.4.8.openapi.json"))


@pytest.fixture(scope="module")
def heard(document: Described) -> Iterator[Heard]:
    """Every verb of the adapter, once."""
    sandbox = Sandbox(people=40, systems=["magento"])
    with served(server(sandbox)) as address:
        root = sandbox.dialects["magento"].address(address)
        token = httpx.post(f"{root}/V1/integration/admin/token", json={"username": ADMIN, "password": PASSWORD}).json()
        with httpx.Client(base_url=root, headers={"authorization": f"Bearer {token}"}) as http:
            wire = Wire(Magento(Config(source="shop", base_url=root)), http)
            asyncio.run(_every_verb(wire, str(next(iter(sandbox.dialects["magento"].tables["contact"]))["id"])))
            yield Heard(document, wire.heard, http)


async def _every_verb(wire: Wire, customer: str) -> None:
    adapter = wire.adapter
    await adapter.check(wire)
    for kind in adapter.kinds:
        await adapter.describe(wire, kind)
        scan = Scan(
            order="updated", after=Position.of(datetime(2024, 1, 1, tzinfo=UTC), "5"), updated_since=datetime(2024, 1, 1, tzinfo=UTC),
            updated_before=datetime(2026, 6, 1, tzinfo=UTC), size=10, fields=PATHS[kind],
        )  # fmt: skip
        page = await adapter.scan(wire, kind, scan)
        assert page.rows
        await adapter.read(wire, kind, [str(page.rows[0].get("entity_id", page.rows[0].get("id")))], PATHS[kind])
    await adapter.related(wire, "order", "contact", [customer], PATHS["order"], 5)
    await adapter.find(wire, "contact", "email", ["ada.king@northwind.example"], PATHS["contact"])
    custom = [
        {"attribute_code": "visits", "value": 7},
        {"attribute_code": "gift_wrap", "value": True},
        {"attribute_code": "interests", "value": ["21", "22"]},
    ]
    row = {"email": "james@bond.example", "firstname": "James", "lastname": "Bond", "custom_attributes": custom}
    [made] = await adapter.write(wire, "contact", [Write(verb="create", row=row)])
    assert made.state == "APPLIED"
    await adapter.write(wire, "contact", [Write(verb="update", native_id=made.native_id, row={"lastname": "Smith"})])
    await adapter.write(wire, "contact", [Write(verb="delete", native_id=made.native_id)])


def test_every_request_is_one_that_the_vendor_describes(heard: Heard) -> None:
    faults: list[str] = []
    for request, _ in heard.calls:
        if request.path in NOT_DESCRIBED:
            continue
        template, operation = heard.described.operation(request.method, request.path)
        known = {each["name"]: each for each in operation["parameters"]}
        # The description shows the first of each group, filter and sort.
        said = {re.sub(r"\[\d+\]", "[0]", name) for name, _ in request.params}
        faults += [f"{template}: {name} is not described" for name in said - known.keys() - {"fields"}]
        bodies = [each["schema"] for each in known.values() if each["in"] == "body"]
        assert bool(bodies) == (request.json is not None), template
        for schema in bodies:
            faults += heard.described.faults(request.json, schema, template)

    assert faults == []
    assert {request.method for request, _ in heard.calls} == {"GET", "POST", "PUT", "DELETE"}


def test_every_answer_of_the_sandbox_is_one_that_the_vendor_describes(heard: Heard) -> None:
    faults: list[str] = []
    for request, answer in heard.calls:
        if request.path not in NOT_DESCRIBED:
            template, operation = heard.described.operation(request.method, request.path)
            faults += heard.described.faults(answer, operation["responses"]["200"]["schema"], template)

    assert faults == []


def test_whole_rows_and_refusals_of_the_sandbox_are_described_too(heard: Heard) -> None:
    faults: list[str] = []
    for path in ("/V1/customers/search", "/V1/orders"):
        _, operation = heard.described.operation("GET", path)
        whole = heard.http.get(f"{path[1:]}?searchCriteria").json()
        assert whole["items"]
        faults += heard.described.faults(whole, operation["responses"]["200"]["schema"], path)
    for path in ("/V1/customers/1", "/V1/customers/search"):
        _, operation = heard.described.operation("GET", path)
        refusal = heard.http.get(path[1:])
        assert refusal.status_code in {400, 404}
        # What parameters hold is left open by the description.
        said = {name: value for name, value in refusal.json().items() if name != "parameters"}
        faults += heard.described.faults(said, operation["responses"]["default"]["schema"], path)

    assert faults == []


def test_what_the_adapter_logs_in_with_is_described(document: Described) -> None:
    _, operation = document.operation("POST", Magento.auth["login"].token_path)  # type: ignore[union-attr]
    [body] = [each["schema"] for each in operation["parameters"] if each["in"] == "body"]

    assert list(document.faults({"username": ADMIN, "password": PASSWORD}, body, "login")) == []
    assert operation["responses"]["200"]["schema"]["type"] == "string"


def _fits(value: Any, kind: str) -> bool:
    if kind in {"integer", "number"}:
        return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "boolean": bool}[kind])

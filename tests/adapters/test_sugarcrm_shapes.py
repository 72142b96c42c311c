"""Whether what is sent to SugarCRM, and what its sandbox answers, fits the vocabulary of its modules.

The vendor publishes no machine-readable description: each instance describes itself. The vocabulary at hand was written from the vendor's guide and from
what is generally known of the product, so a fit says less here than with other systems.
"""

import asyncio
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.base import Scan
from adapters.sugarcrm import SugarCRM
from model.money import Money
from model.records import Kind
from sandbox.app import Sandbox, server
from sandbox.sugarcrm_metadata import DROPDOWNS, FIELDS, LINKS, options
from sources.reading import Reading
from sources.source import Source
from sources.writing import RecordWrite
from tests.adapters.test_contract import Vendors
from tests.specifications import digest
from tests.world import served

KINDS: list[Kind] = ["contact", "account", "lead", "deal"]
NAMED = {"contact": "family_name", "lead": "family_name", "account": "name", "deal": "name"}
EXTRAS = {"_acl", "_module"}
Call = tuple[str, list[str], dict[str, Any]]  # method, steps of the path behind the version, what is said


class Heard:
    """Stands before the sandbox and keeps what it is asked, bulk calls taken apart."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.calls: list[Call] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        messages: list[Message] = []
        while not messages or messages[-1].get("more_body"):
            messages.append(await receive())
            body += messages[-1].get("body", b"")

        async def again() -> Message:
            return messages.pop(0) if messages else await receive()

        self._keep(scope["method"], scope["path"].split("/rest/")[1], scope["query_string"].decode(), body)
        await self.app(scope, again, send)

    def _keep(self, method: str, path: str, query: str, body: bytes) -> None:
        _, *steps = path.strip("/").split("/")
        said = {name: values[0] for name, values in parse_qs(query).items()} | (orjson.loads(body) if body else {})
        self.calls.append((method, steps, said))
        for each in said.get("requests", ()):
            address = urlsplit(each["url"])
            self._keep(each["method"], address.path, address.query, each.get("data", "").encode())


@pytest.fixture(scope="module")
def spec() -> Any:
    return digest("sugarcrm", "modules.json")


@pytest.fixture(scope="module")
def calls() -> Iterator[list[Call]]:
    """Everything that is sent when each verb is asked of each kind."""
    sandbox = Sandbox(people=60, systems=["sugarcrm"])
    heard = Heard(sandbox)
    with served(server(heard)) as address, TemporaryDirectory() as folder:
        Vendors(sandbox, address, Path(folder)).run("sugarcrm", everything)
        yield heard.calls


async def everything(source: Source) -> None:
    reading = Reading(deadline=asyncio.get_running_loop().time() + 60, policy="LIVE")
    await source.check(reading)
    made: dict[Kind, str] = {}
    for kind in KINDS:
        mapped = [*source.adapter.kinds[kind].mapping, "custom.*"]
        values: dict[str, Any] = {
            NAMED[kind]: "Fits",
            **({"email": f"{kind}@brandnew.example", "phone": "+12125550100"} if kind in {"contact", "lead"} else {}),
        }
        values |= {
            "contact": {"title": "CEO"},
            "lead": {"company": "Ours", "status": "Assigned"},
            "account": {"domain": "ours.example", "industry": "Retail"},
        }.get(kind, {})
        if kind == "deal":
            values |= {"amount": Money(Decimal("12.5"), "GBP"), "stage": "WON", "close_date": date(2026, 5, 1)}
        links = {other: [made[other]] for other in source.adapter.kinds[kind].links if other in made}
        [created] = await source.write(kind, [RecordWrite(verb="create", values=values, links=links)], reading)
        assert created.state == "APPLIED"
        made[kind] = created.native_id or ""
        record = (await source.read(kind, [made[kind]], fields=mapped, reading=reading)).value[made[kind]]
        assert record is not None
        await source.write(
            kind, [RecordWrite(verb="update", native_id=made[kind], values=values, if_version=record.version)], reading
        )
        for order in ("created", "updated"):
            span = {"updated_since": datetime(2024, 1, 1).astimezone(), "updated_before": datetime(2027, 1, 1).astimezone()}
            await source.scan(
                kind, Scan(order=order, size=20, descending=order == "updated", **span), fields=mapped, reading=reading
            )  # type: ignore[arg-type]
        for key in source.adapter.kinds[kind].find:
            await source.find(
                kind,
                key,
                ["ada.king@northwind.example" if key == "email" else "northwind.example"],
                fields=mapped,
                reading=reading,
            )
    for of, kind in source.adapter.relations:
        await source.related(kind, of, [made[of]], fields=[*source.adapter.kinds[kind].mapping], first=5, reading=reading)
    await source.read("owner", ["1"], fields=[*source.adapter.kinds["owner"].mapping], reading=reading)
    for kind in KINDS:
        await source.write(kind, [RecordWrite(verb="delete", native_id=made[kind])], reading)


def of_modules(calls: list[Call], spec: Any) -> list[Call]:
    return [call for call in calls if call[1][0] in spec["modules"]]


def test_only_modules_and_paths_that_are_known_are_asked(calls: list[Call], spec: Any) -> None:
    others = {"/".join(steps) for _, steps, _ in calls if steps[0] not in spec["modules"]}
    behind = {tuple(each for each in steps[1:] if each in {"filter", "enum", "link"}) for _, steps, _ in of_modules(calls, spec)}

    assert others == {"oauth2/token", "me", "metadata", "lang/en_us", "bulk"}
    assert behind == {(), ("filter",), ("enum",), ("link",)}
    assert {steps[0] for _, steps, _ in of_modules(calls, spec)} == {facts.object for facts in SugarCRM.kinds.values()}


def test_fields_that_are_asked_for_are_fields_of_their_module(calls: list[Call], spec: Any) -> None:
    asked = [(steps, said) for _, steps, said in of_modules(calls, spec) if "fields" in said]

    assert len(asked) > 20
    for steps, said in asked:
        module = spec["links"][steps[0]][steps[3]] if "link" in steps else steps[0]
        known = spec["modules"][module]
        assert {name for name in said["fields"].split(",") if not name.endswith("_c")} <= known.keys()
        assert {each.split(":")[0] for each in said["order_by"].split(",")} <= known.keys()


def test_filters_name_fields_and_links_of_their_module(calls: list[Call], spec: Any) -> None:
    named = {(steps[0], name) for _, steps, said in of_modules(calls, spec) for name in _names(said.get("filter", []))}

    assert {("Contacts", "email_addresses.email_address"), ("Accounts", "website"), ("Opportunities", "account_id")} <= named
    for module, name in named - {(module, "email_addresses.email_address") for module in ("Contacts", "Leads")}:
        assert name in spec["modules"][module]


def test_what_is_written_fits_its_fields_and_their_choices(calls: list[Call], spec: Any) -> None:
    written = [
        (steps[0], said)
        for method, steps, said in of_modules(calls, spec)
        if len(steps) < 3 and method in {"POST", "PUT"} and "filter" not in steps
    ]
    links = [(steps[0], said) for method, steps, said in of_modules(calls, spec) if steps[-1] == "link" and method == "POST"]

    assert {module for module, _ in written} == {"Contacts", "Accounts", "Leads", "Opportunities"}
    for module, said in written:
        for name, value in said.items():
            assert _fits(spec["modules"][module][name], value), (module, name)
            assert value in spec["enums"].get(f"{module}.{name}", [value])
    assert links
    assert all(said["link_name"] in spec["links"][module] and said["ids"] for module, said in links)


@pytest.mark.parametrize("kind", [*KINDS, "owner"])
def test_the_sandbox_answers_with_fields_of_their_types(kind: Kind, spec: Any) -> None:
    dialect = Sandbox(people=60, systems=["sugarcrm"]).dialects["sugarcrm"]
    module = SugarCRM.kinds[kind].object
    known = spec["modules"][module]

    for row in dialect.tables[kind]:
        shown = dialect._records.shown(module, row)  # type: ignore[attr-defined]
        if row["deleted"]:
            assert shown.keys() == {"id", "date_modified", "deleted", *EXTRAS}
            continue
        assert {name for name in shown if not name.endswith("_c")} == known.keys() | EXTRAS
        assert [name for name, type in known.items() if not _fits(type, shown[name])] == []


def test_the_sandbox_knows_the_same_fields_links_and_choices(spec: Any) -> None:
    assert {module: dict(fields) for module, fields in FIELDS.items()} == {module: spec["modules"][module] for module in FIELDS}
    assert all(links.items() <= spec["links"].get(module, {}).items() for module, links in LINKS.items())
    for field, words in spec["enums"].items():
        module, name = field.split(".")
        if module in FIELDS:
            assert [word for word in options(module, name) or () if word] == words
    assert [word for word in DROPDOWNS["lead_source_dom"] if word] == spec["enums"]["*.lead_source"]


def _names(tests: Any) -> Iterator[str]:
    for test in tests:
        for name, said in test.items():
            if name in {"$and", "$or"}:
                yield from _names(said)
            else:
                yield name


def _fits(type: str, value: Any) -> bool:
    """Tell whether a value is spelled as the vocabulary's type says; "" and null are empty."""
    if value in (None, ""):
        return not type.endswith("*")
    looks: dict[str, Callable[[Any], Any]] = {
        "bool": lambda said: isinstance(said, bool), "datetime": lambda said: datetime.fromisoformat(said).utcoffset() is not None,
        "date": date.fromisoformat, "currency": lambda said: isinstance(said, str) and Decimal(said).is_finite(),
        "email": lambda said: isinstance(said, list) and all({"email_address", "primary_address"} <= each.keys() for each in said),
        "tag": lambda said: isinstance(said, list), "teamset": lambda said: isinstance(said, list), "ulong": lambda said: str(said).isdigit(),
    }  # fmt: skip
    try:
        return bool(looks.get(type.split("(")[0].split("[")[0], lambda said: isinstance(said, str))(value))
    except (ValueError, ArithmeticError, TypeError):
        return False

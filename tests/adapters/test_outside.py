"""A system that none of our code knows: the two of docs/add-a-system.md, exactly as they stand there, and their mistakes."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.registry import discovered
from gateway.app import create
from gateway.settings import Settings
from model.errors import ConfigurationError
from tests.programs import c360
from tests.world import served

PAGE = (Path(__file__).parents[2] / "docs" / "add-a-system.md").read_text()
ACME, GLOBEX = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
START = datetime(2026, 1, 1, tzinfo=UTC)
# Seven share each time, so that pages cut through groups of equal times.
PEOPLE = [
    {
        "id": 100 + n, "first": "Pat", "last": f"Doe{n}", "mail": f"P{n}@Acme.example", "phone": None,
        "created": (START + timedelta(hours=n // 7)).isoformat(), "changed": START.isoformat(),
    }
    for n in range(180)
]  # fmt: skip
DEALS = [
    {"id": 900 + n, "title": f"Deal {n}", "cents": 123456, "currency": ("USD", "JPY")[n % 2], "stage": "talks", "person": 100 + n // 2, "created": START.isoformat(), "changed": START.isoformat()}
    for n in range(40)
]  # fmt: skip


MEMBERS = [
    {"id": f"m{n:03}", "joined": (START + timedelta(days=n // 3)).isoformat(), "label": f"Pat Doe{n}", "contact": {"mail": f"p{n}@acme.example"}}
    for n in range(30)
]  # fmt: skip


async def acme(request: Request) -> Response:
    if request.headers.get("authorization") != "Bearer acme-token":
        return JSONResponse({"error": "who?"}, 401)
    query, path = request.query_params, request.path_params["path"]
    if path == "me":
        return JSONResponse({"company": {"id": "acme-1"}})
    kind, _, id = path.partition("/")
    rows: list[dict[str, Any]] = request.app.state.acme[kind]
    if request.method == "POST":
        row = {
            "id": 5000 + len(rows),
            "created": START.isoformat(),
            "changed": START.isoformat(),
            "phone": None,
            "stage": "talks",
            **await request.json(),
        }
        if any(row.get("mail") and each.get("mail", "").lower() == row["mail"].lower() for each in rows):
            return JSONResponse({"error": "taken"}, 409)
        rows.append(row)
        return JSONResponse(row, 201)
    if request.method in {"PATCH", "DELETE"} and (row := next((each for each in rows if str(each["id"]) == id), None)):
        rows.remove(row)
        if request.method == "DELETE":
            return Response(status_code=204)
        rows.append(row | await request.json())
        return JSONResponse(rows[-1])
    if id:
        return next((JSONResponse(row) for row in rows if str(row["id"]) == id), JSONResponse({"error": "none"}, 404))
    if "email" in query:
        rows = [row for row in rows if row["mail"].lower() == query["email"]]
    if "person" in query:
        rows = [row for row in rows if str(row["person"]) == query["person"]]
    low, high = (datetime.fromisoformat(query.get(name, edge)) for name, edge in (("created_from", "2000-01-01T00:00:00+00:00"), ("created_to", "2100-01-01T00:00:00+00:00")))  # fmt: skip
    rows = [row for row in rows if low <= datetime.fromisoformat(row["created"]) <= high]
    # Ties in no order of ids, the same each time.
    rows = sorted(rows, key=lambda row: (row["created"], row["id"] * 7919 % 101), reverse=query.get("sort", "").startswith("-"))
    size, page = int(query["size"]), int(query["page"])
    return JSONResponse({"items": rows[size * (page - 1) : size * page]}, headers={"x-limit": "120", "x-remaining": "99"})


async def globex(request: Request) -> Response:
    if request.headers.get("x-globex-key") != "globex-key":
        return JSONResponse({}, 401)
    said = await request.json()
    members: list[dict[str, Any]] = request.app.state.members
    variables = said["variables"]
    if "tenant" in said["query"]:
        return JSONResponse({"data": {"tenant": "globex-1"}})
    if "save" in said["query"]:
        known = next((each for each in members if each["id"] == variables["id"]), None)
        if known is not None:
            members.remove(known)
        if "drop" in said["query"] or (known is None and variables["id"]):
            return JSONResponse({"data": {"save": known}})
        members.append((known or {"id": f"m{len(members):03}", "joined": START.isoformat()}) | variables["member"])
        return JSONResponse({"data": {"save": members[-1]}})
    if "ids" in variables:
        return JSONResponse({"data": {"members": [each for each in members if each["id"] in variables["ids"]]}})
    if "mails" in variables:
        return JSONResponse({"data": {"members": [each for each in members if each["contact"]["mail"] in variables["mails"]]}})
    members = sorted(members, key=lambda each: (each["joined"], each["id"]), reverse=variables["down"])
    if variables["after"]:
        edge = tuple(variables["after"])
        members = [
            each
            for each in members
            if ((each["joined"], each["id"]) < edge if variables["down"] else (each["joined"], each["id"]) > edge)
        ]
    return JSONResponse({"data": {"walk": members[: variables["first"]]}})


@contextmanager
def connected(folder: Path) -> Iterator[httpx.Client]:
    """Serve both vendors, and a gateway that has them from files."""
    (folder / "acme.py").write_text(ACME)
    (folder / "globex.py").write_text(GLOBEX)
    vendors = Starlette(
        routes=[
            Route("/api/{path:path}", acme, methods=["GET", "POST", "PATCH", "DELETE"]),
            Route("/graphql", globex, methods=["POST"]),
        ]
    )
    vendors.state.acme = {"people": [dict(each) for each in PEOPLE], "deals": [dict(each) for each in DEALS]}
    vendors.state.members = [dict(each) for each in MEMBERS]
    with served(uvicorn.Server(uvicorn.Config(vendors, log_level="error"))) as address:
        settings = Settings.model_validate({
            "require_key": False, "data_dir": folder / "data", "adapters": [folder / "acme.py", folder / "globex.py"],
            "sources": [
                {"id": "acme", "system": "acme", "base_url": address, "auth": {"scheme": "token", "token": "acme-token"}},
                {"id": "globex", "system": "globex", "base_url": address, "auth": {"scheme": "token", "token": "globex-key"}},
            ],
        })  # fmt: skip
        with (
            served(uvicorn.Server(uvicorn.Config(create(settings), log_level="error"))) as url,
            httpx.Client(base_url=url, timeout=30) as http,
        ):
            yield http


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with connected(tmp_path_factory.mktemp("outside")) as http:
        yield http


def ask(http: httpx.Client, query: str, **variables: Any) -> Any:
    body = http.post("/graphql", json={"query": query, "variables": variables}).json()
    assert "errors" not in body, body
    return body["data"]


def test_a_customer_is_put_together_over_both(outside: httpx.Client) -> None:
    query = '{ customer(by: {email: "p4@acme.example"}) { refs { system recordId } deals(first: 5) { nodes { name amount { amount currency } stage { category } } } sources { state } } }'

    customer = ask(outside, query)["customer"]

    assert {(each["system"], each["recordId"]) for each in customer["refs"]} == {("acme", "104"), ("globex", "m004")}
    assert {each["state"] for each in customer["sources"]} == {"OK"}
    amounts = {each["amount"]["currency"]: each["amount"]["amount"] for each in customer["deals"]["nodes"]}
    assert amounts == {"USD": "1234.56", "JPY": "123456"}, "cents are hundredths, and a yen has none"


@pytest.mark.parametrize("first", [7, 50, 99])
def test_a_list_of_both_joins_whole_in_order(outside: httpx.Client, first: int) -> None:
    query = """query($first: Int!, $after: String) { contacts(first: $first, after: $after) {
      nodes { ref { system recordId } } pageInfo { hasNextPage endCursor } } }"""
    found: list[Any] = []
    after, more = None, True
    while more:
        page = ask(outside, query, first=first, after=after)["contacts"]
        found += page["nodes"]
        after, more = page["pageInfo"]["endCursor"], page["pageInfo"]["hasNextPage"]

    expected = [(datetime.fromisoformat(each["created"]), "acme", str(each["id"])) for each in PEOPLE]
    expected += [(START + timedelta(days=n // 3), "globex", f"m{n:03}") for n in range(30)]
    assert [(each["ref"]["system"], each["ref"]["recordId"]) for each in found] == [
        (system, id) for _, system, id in sorted(expected)
    ]


def test_both_are_written_in_one_call(tmp_path: Path) -> None:
    upsert = """mutation($input: CustomerInput!, $key: ID!) { customerUpsert(
      input: $input, options: {idempotencyKey: $key, targets: ["acme", "globex"]}) {
        customer { name emails refs { system } } writes { source { id } state changed } userErrors { code field source { id } } } }"""
    deal = """mutation($input: DealInput!) { dealUpsert(input: $input, options: {idempotencyKey: "d", targets: ["acme"]}) {
      deal { name amount { amount currency } contacts { email } customer { id } } writes { state } userErrors { message } } }"""
    said = {"emails": ["new@acme.example"], "phones": ["+14155550123"], "givenName": "New", "familyName": "Comer"}
    with connected(tmp_path) as http:
        made = ask(http, upsert, input=said, key="1")["customerUpsert"]
        again = ask(http, upsert, input={**said, "familyName": "Changed"}, key="2")["customerUpsert"]
        customer = ask(http, '{ customer(by: {email: "new@acme.example"}) { id } }')["customer"]["id"]
        sold = ask(http, deal, input={"customerId": customer, "name": "Big", "amount": "12.34", "currency": "USD"})["dealUpsert"]
        deals = ask(http, '{ customer(by: {email: "new@acme.example"}) { deals { nodes { name } } } }')["customer"]["deals"][
            "nodes"
        ]

    assert {(each["source"]["id"], each["state"]) for each in made["writes"]} == {("acme", "APPLIED"), ("globex", "APPLIED")}
    assert {(each["code"], each["source"]["id"]) for each in made["userErrors"]} == {("UNSUPPORTED", "globex")}, (
        "Globex has no phones"
    )
    assert {each["system"] for each in made["customer"]["refs"]} == {"acme", "globex"}
    assert {each["source"]["id"]: (each["state"], each["changed"]) for each in again["writes"]} == {
        "acme": ("APPLIED", ["family_name"]), "globex": ("APPLIED", ["name"]),
    }  # fmt: skip
    assert (sold["userErrors"], [each["state"] for each in sold["writes"]]) == ([], ["APPLIED"])
    assert sold["deal"]["amount"] == {"amount": "12.34", "currency": "USD"}
    assert deals == [{"name": "Big"}]


def test_systems_lists_it(tmp_path: Path) -> None:
    (tmp_path / "acme.py").write_text(ACME)

    told = c360("systems", cwd=tmp_path, C360_ADAPTERS="acme.py")

    assert re.search(r"^acme +2 +E0 +contact, deal +token$", told.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ('    name = "acme"\n', "", "Acme.name: is missing"),
        ('    name = "acme"\n', '    name = "Acme CRM"\n', "Acme.name: 'Acme CRM' must be lower case"),
        ('    name = "acme"\n', '    name = "hubspot"\n', "Acme.name: there is a system 'hubspot' already"),
        ('    auth = {"token": Token()}\n', "", "Acme.auth: is missing"),
        ('auth = {"token": Token()}', 'auth = {"token": "Bearer"}', "Acme.auth['token']: must be OAuth"),
        ("limit=120", "limit=0", "Acme.windows: 'minute' needs a limit"),
        ('"contact": KindFacts(', '"person": KindFacts(', "names 'contact', which `kinds` does not have"),
        ('"deal": KindFacts(', '"chance": KindFacts(', "names 'deal', which `kinds` does not have"),
        ('"name": "title"', '"title": "title"', "Acme.kinds['deal'].mapping['title']: there is no field 'title'"),
        ('"convert": "email"', '"convert": "e-mail"', "no converter 'e-mail'"),
        ('find={"email": "email"}, ', "", "Acme.resources['contact'].find: kinds['contact'] promises 'email'"),
        (', of={"contact": "person"}', "", "Acme.resources['deal'].of: relations promise"),
        ('frozenset({("contact", "deal")})', 'frozenset({("account", "deal")})', "names 'account', which `kinds` does not have"),
        ('check_path, account = "/api/me", "company.id"', 'account = "company.id"', "Acme.check_path: is missing"),
        ('writes={"email": "mail"', 'writes={"e_mail": "mail"', "Acme.kinds['contact'].writes['e_mail']: there is no such field"),
        ('writes={"email": "mail"', 'writes={"email": "mail["', "Acme.kinds['contact'].writes: not a path"),
        (
            '            verbs=frozenset({"create", "update", "delete"}),\n            writes={"email"',
            '            writes={"email"',
            "`verbs` and `writes` go together",
        ),
        ('links={"contact": "person"}', 'links={"account": "firm"}', "Acme.kinds['deal'].links: names 'account'"),
        ("class Acme(RestAdapter):", "class Acme(RestAdaptor):", "NameError"),
        ("class Acme(RestAdapter):", "class Acme:", "has no class that inherits from Adapter"),
    ],
)
def test_a_mistake_names_the_file_the_class_and_the_fact(tmp_path: Path, before: str, after: str, line: str) -> None:
    assert before in ACME
    path = tmp_path / "acme.py"
    path.write_text(ACME.replace(before, after))

    with pytest.raises(ConfigurationError) as refused:
        discovered([path])

    assert str(path) in refused.value.message
    assert line in refused.value.message


def test_a_verb_that_the_facts_promise_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "globex.py"
    path.write_text(GLOBEX.replace("async def find(", "async def search("))

    with pytest.raises(ConfigurationError, match=r"Globex\.find: the facts promise it"):
        discovered([path])


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    told = c360("systems", cwd=tmp_path, C360_ADAPTERS="none.py")

    assert (told.returncode, "none.py does not exist" in told.stderr) == (2, True)


def test_a_package_brings_its_adapter_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_adapter.py").write_text(ACME)
    info = tmp_path / "acme_adapter-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-adapter\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[customer360.adapters]\nacme = acme_adapter:Acme\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert discovered()["acme"].label == "Acme CRM"

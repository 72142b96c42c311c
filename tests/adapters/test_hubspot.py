"""What is unusual about HubSpot: text for every value, answers out of order, associations, a search that lags behind."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from adapters.base import Adapter, Api, Config, Outcome, Request, Response, Write
from adapters.hubspot import HubSpot
from adapters.hubspot_kinds import KINDS
from mapping.native import native, spellings
from model.errors import DuplicateError, ExhaustedError, RejectedError, UnavailableError
from model.money import Money
from sandbox.faults import Fault
from sandbox.hubspot_answers import millis
from tests.adapters.lent import Lent, lent
from tests.adapters.refusals.answers import answer
from tests.specifications import digest


@pytest.fixture(scope="module")
def portal() -> Iterator[Lent]:
    with lent("hubspot") as running:
        yield running


def of(kind: Any, **values: Any) -> dict[str, Any]:
    return native(spellings(KINDS[kind].writes), values)


def create(kind: Any, links: Any = None, **values: Any) -> Write:
    return Write(verb="create", row=of(kind, **values), links=links or {})


def states(outcomes: list[Outcome]) -> list[str]:
    return [each.state for each in outcomes]


def contacts(portal: Lent) -> list[str]:
    return [str(each.id) for each in portal.sandbox.world.profiles["hubspot"] if not each.deleted]


def company(portal: Lent) -> str:
    return next(iter(portal.sandbox.dialects["hubspot"].tables["account"]))["id"]


def test_each_row_of_a_batch_has_its_own_outcome(portal: Lent) -> None:
    taken = "ada.king@northwind.example"

    good, twice, bad, unknown = portal.write(
        "contact",
        create("contact", email="one@batch.example", given_name="One"),
        create("contact", email=taken.upper(), given_name="Two"),
        create("contact", email="no address", given_name="Three"),
        Write(verb="create", row={"properties": {"email": "four@batch.example", "nonsense": "4"}}),
    )

    [row] = portal.read("contact", good.native_id or "", fields=("properties.email", "properties.firstname"))
    assert (good.state, row["properties"]["email"], row["properties"]["firstname"]) == ("APPLIED", "one@batch.example", "One")
    assert (twice.state, type(twice.error)) == ("CONFLICT", DuplicateError)
    assert (bad.state, bad.fields, bad.error and bad.error.upstream_code) == ("REJECTED", ("properties.email",), "INVALID_EMAIL")
    assert (unknown.state, unknown.fields) == ("REJECTED", ("properties.nonsense",))
    assert not any(word in str(each.error) for each in (twice, bad, unknown) for word in ("@", "address", "nonsense", "Existing"))


def test_a_record_with_more_associations_than_one_answer_holds_is_told_to_have_more(portal: Lent) -> None:
    vendor = portal.sandbox.dialects["hubspot"]
    employer = company(portal)
    portal.write("contact", *(create("contact", {"account": [employer]}, email=f"{n}@crowd.example") for n in range(3)))

    vendor.links_page = 2  # type: ignore[attr-defined]
    [few] = portal.run(lambda adapter, api: adapter.related(api, "contact", "account", [employer], ["properties.email"], 100))
    vendor.links_page = 500  # type: ignore[attr-defined]
    [all] = portal.run(lambda adapter, api: adapter.related(api, "contact", "account", [employer], ["properties.email"], 100))

    assert (len(few.rows), few.more) == (2, True)
    assert len(all.rows) >= 3
    assert not all.more


def test_a_hundred_and_one_rows_go_out_as_two_batches(portal: Lent) -> None:
    portal.sandbox.dialects["hubspot"].calls.clear()

    outcomes = portal.write("contact", *(create("contact", email=f"n{n}@many.example", given_name=f"N{n}") for n in range(101)))

    rows = portal.read("contact", *(each.native_id or "" for each in outcomes), fields=("properties.firstname",))
    assert [row["properties"]["firstname"] for row in rows] == [f"N{n}" for n in range(101)]
    assert portal.sandbox.dialects["hubspot"].calls["POST /crm/v3/objects/contacts/batch/create"] == 2


def test_an_upsert_tells_what_is_new_and_does_not_undo_what_it_does_not_name(portal: Lent) -> None:
    rows = [
        of("contact", email="Ada.King@northwind.example", title="Countess"),
        of("contact", email="new@upsert.example", title="New"),
    ]

    old, new = portal.write("contact", *(Write(verb="upsert", row=row, match="email") for row in rows))

    [row] = portal.read("contact", old.native_id or "", fields=("properties.jobtitle", "properties.firstname"))
    assert (old.state, old.created, new.state, new.created) == ("APPLIED", False, "APPLIED", True)
    assert (row["properties"]["jobtitle"], row["properties"]["firstname"]) == ("Countess", "Ada")


def test_a_deal_is_tied_to_its_contact_and_company_as_it_is_created(portal: Lent) -> None:
    person, firm = contacts(portal)[3], company(portal)
    values = {
        "name": "Big",
        "stage": "qualifiedtobuy",
        "amount": Money(Decimal("1500.50"), "EUR"),
        "close_date": datetime(2026, 3, 1, tzinfo=UTC).date(),
    }

    [outcome] = portal.write("deal", create("deal", {"contact": [person], "account": [firm]}, **values))

    async def back(adapter: Adapter, api: Api) -> tuple[Any, ...]:
        id = outcome.native_id or ""
        [row] = await adapter.read(
            api,
            "deal",
            [id],
            ["properties.amount", "properties.deal_currency_code", "properties.closedate", "properties.pipeline"],
        )
        [people] = await adapter.related(api, "contact", "deal", [id], [], 10)
        [firms] = await adapter.related(api, "account", "deal", [id], [], 10)
        [deals] = await adapter.related(api, "deal", "contact", [person], [], 50)
        return (
            row,
            [each["id"] for each in people.rows],
            [each["id"] for each in firms.rows],
            id in [each["id"] for each in deals.rows],
        )

    row, people, firms, found = portal.run(back)
    said = {name: row["properties"][name] for name in ("amount", "deal_currency_code", "closedate", "pipeline")}
    assert said == {
        "amount": "1500.50",
        "deal_currency_code": "EUR",
        "closedate": "2026-03-01T00:00:00.000Z",
        "pipeline": "default",
    }
    assert (people, firms, found) == ([person], [firm], True)


def test_a_stage_of_another_pipeline_brings_its_pipeline_with_it(portal: Lent) -> None:
    [outcome] = portal.write("deal", create("deal", name="Partner", stage="1011"))

    [row] = portal.read("deal", outcome.native_id or "", fields=("properties.pipeline",))
    assert row["properties"]["pipeline"] == "98765"


def test_a_ticket_without_a_stage_is_a_new_one(portal: Lent) -> None:
    [outcome] = portal.write("ticket", create("ticket", subject="Help"))

    [row] = portal.read("ticket", outcome.native_id or "", fields=("properties.hs_pipeline_stage", "properties.hs_pipeline"))
    assert (row["properties"]["hs_pipeline"], row["properties"]["hs_pipeline_stage"]) == ("0", "1")


def test_a_contact_moves_to_a_company_by_association(portal: Lent) -> None:
    [person] = portal.write("contact", create("contact", email="mover@links.example"))
    ids = [row["id"] for row in portal.sandbox.dialects["hubspot"].tables["account"]][:2]

    outcomes = [
        portal.write("contact", Write(verb="update", native_id=person.native_id, links={"account": [id]}))
        for id in [ids[0], ids[0], "1"]
    ]

    [row] = portal.read("contact", person.native_id or "", fields=("properties.associatedcompanyid",))
    assert [states(each) for each in outcomes] == [["APPLIED"], ["APPLIED"], ["REJECTED"]]
    assert row["properties"]["associatedcompanyid"] == ids[0]


def test_what_is_written_but_not_tied_says_so(portal: Lent) -> None:
    [person] = portal.write("contact", create("contact", email="loose@links.example"))

    [outcome] = portal.write(
        "contact", Write(verb="update", native_id=person.native_id, row=of("contact", title="Tied?"), links={"account": ["1"]})
    )

    [row] = portal.read("contact", person.native_id or "", fields=("properties.jobtitle",))
    assert (outcome.state, str(outcome.error)) == ("REJECTED", "written, but not tied to its account")
    assert (outcome.native_id, row["properties"]["jobtitle"]) == (person.native_id, "Tied?")


def test_a_tie_that_got_no_answer_may_be_asked_for_again(portal: Lent) -> None:
    [person] = portal.write("contact", create("contact", email="tie@again.example"))
    write = Write(verb="update", native_id=person.native_id, row=of("contact", title="x"), links={"account": [company(portal)]})

    number = portal.sandbox.faults.add(Fault(system="hubspot", path="*/associate/default", fault="exhaust"))
    [first] = portal.write("contact", write)
    portal.sandbox.faults.remove(number)
    [second] = portal.write("contact", write)

    assert (first.state, second.state) == ("REJECTED", "APPLIED")
    assert isinstance(first.error, ExhaustedError)


def test_a_new_record_with_a_tie_to_nobody_is_not_made(portal: Lent) -> None:
    [outcome] = portal.write("deal", create("deal", {"contact": ["1"]}, name="Nobody's", stage="closedwon"))

    assert (outcome.state, outcome.native_id) == ("REJECTED", None)


def test_updating_what_is_gone_is_refused_and_deleting_it_is_no_change(portal: Lent) -> None:
    merged = next(str(each.id) for each in portal.sandbox.world.profiles["hubspot"] if each.merged_into)
    winner = next(str(each.merged_into) for each in portal.sandbox.world.profiles["hubspot"] if str(each.id) == merged)
    victim = contacts(portal)[7]

    deleted = portal.write(
        "contact",
        Write(verb="delete", native_id=victim),
        Write(verb="delete", native_id="1"),
        Write(verb="delete", native_id=merged),
    )
    again = portal.write("contact", Write(verb="delete", native_id=victim))
    updated = portal.write(
        "contact", *(Write(verb="update", native_id=id, row=of("contact", title="x")) for id in (victim, "1", merged))
    )

    assert states(deleted) + states(again) == ["APPLIED", "UNCHANGED", "UNCHANGED", "UNCHANGED"]
    assert [(each.state, each.error and each.error.code) for each in updated] == [("REJECTED", "NOT_FOUND")] * 3
    assert portal.read("contact", winner)[0] is not None, "the winner is not deleted by the loser's id"


def test_clearing_a_field_and_moving_its_version(portal: Lent) -> None:
    [person] = portal.write("contact", create("contact", email="clear@fields.example", title="Boss"))
    [before] = portal.read("contact", person.native_id or "")

    portal.write("contact", Write(verb="update", native_id=person.native_id, row=of("contact", title=None)))

    [after] = portal.read("contact", person.native_id or "", fields=("properties.jobtitle",))
    assert after["properties"]["jobtitle"] is None
    assert millis(after["updatedAt"]) > millis(before["updatedAt"])


def test_search_shows_a_write_only_after_some_moments(portal: Lent) -> None:
    async def work(adapter: Adapter, api: Api) -> list[int]:
        found = []
        await adapter.write(api, "contact", [create("contact", email="late@search.example")])
        for wait in (0, adapter.kinds["contact"].lag):
            portal.sandbox.clock.advance(wait)
            found.append(len(await adapter.find(api, "contact", "email", ["late@search.example"], [])))
        return found

    assert portal.run(work) == [0, 1]


def test_a_batch_that_got_no_clear_answer_is_unknown_and_creates_are_not_sent_again(portal: Lent) -> None:
    path = "*/contacts/batch/create"
    portal.sandbox.dialects["hubspot"].calls.clear()
    number = portal.sandbox.faults.add(Fault(system="hubspot", path=path, fault="status", status=503))

    outcomes = portal.write("contact", create("contact", email="a@unclear.example"), create("contact", email="b@unclear.example"))
    portal.sandbox.faults.remove(number)

    assert [(each.state, type(each.error)) for each in outcomes] == [("UNKNOWN", UnavailableError)] * 2
    assert portal.sandbox.dialects["hubspot"].calls["POST /crm/v3/objects/contacts/batch/create"] == 1


def test_a_row_that_an_answer_does_not_name_is_found_by_its_key_or_stays_unknown(portal: Lent) -> None:
    class Untraced:
        async def send(self, request: Any) -> Response:
            row = {"id": "9", "properties": {"email": "two@x.example"}}
            return Response(status=201, headers={}, body=httpx.Response(201, json={"results": [row]}).content)

        async def described(self, kind: Any) -> Any:
            raise AssertionError

    async def work(adapter: Adapter, _: Api) -> list[Outcome]:
        return await adapter.write(
            Untraced(), "contact", [create("contact", email="one@x.example"), create("contact", email="two@x.example")]
        )

    one, two = portal.run(work)

    assert (one.state, two.state, two.native_id) == ("UNKNOWN", "APPLIED", "9")


def test_a_batch_that_is_refused_as_a_whole_is_halved_until_the_culprit_stands_alone(portal: Lent) -> None:
    class Untraced:
        def __init__(self, api: Api) -> None:
            self._api = api

        async def send(self, request: Request) -> Response:
            for each in request.json["inputs"]:  # type: ignore[index]
                del each["objectWriteTraceId"]
            return await self._api.send(request)

        async def described(self, kind: Any) -> Any:
            return await self._api.described(kind)

    emails = ["h1@half.example", "ada.king@northwind.example", "h3@half.example", "nonsense", "h5@half.example"]
    writes = [create("contact", email=email) for email in emails]

    outcomes = portal.run(lambda adapter, api: adapter.write(Untraced(api), "contact", writes))

    rows = portal.read("contact", *(outcomes[at].native_id or "" for at in (0, 2, 4)), fields=("properties.email",))
    assert states(outcomes) == ["APPLIED", "CONFLICT", "APPLIED", "REJECTED", "APPLIED"]
    assert [row["properties"]["email"] for row in rows] == [emails[at] for at in (0, 2, 4)]


def test_the_date_based_paths_write_as_the_classic_ones_do(portal: Lent) -> None:
    portal.sandbox.dialects["hubspot"].calls.clear()

    async def work(_: Adapter, api: Api) -> list[Any]:
        adapter = HubSpot(Config(source="hubspot", base_url=f"{portal.address}/hubspot", api_version="2026-09"))
        [made] = await adapter.write(api, "deal", [create("deal", name="Dated", stage="closedwon")])
        id = made.native_id or ""
        tied = await adapter.write(api, "deal", [Write(verb="update", native_id=id, links={"contact": [contacts(portal)[0]]})])
        [related] = await adapter.related(api, "contact", "deal", [id], [], 5)
        gone = await adapter.write(api, "deal", [Write(verb="delete", native_id=id)])
        return [*states([*tied, *gone]), len(related.rows), len(await adapter.objects(api))]

    assert portal.run(work) == ["APPLIED", "APPLIED", 1, 1]
    posted = [path for path in portal.sandbox.dialects["hubspot"].calls if path.startswith("POST /crm")]
    assert len(posted) == 6
    assert all("2026-09" in path for path in posted)


def test_custom_objects_are_told_and_read_with_their_types(portal: Lent) -> None:
    async def work(adapter: Adapter, api: Api) -> tuple[Any, list[Any], list[Any], list[Any]]:
        [subscriptions] = await adapter.objects(api)
        fields = [each.path for each in subscriptions.fields.values()]
        pages, after = [], None
        while True:
            page = await adapter.scan_custom(api, subscriptions, after=after, size=3, fields=fields)
            pages.append(page.rows)
            if (after := page.next) is None:
                break
        ids = [row["id"] for rows in pages for row in rows]
        return subscriptions, pages, ids, await adapter.read_custom(api, subscriptions, [*ids[::-1], "1"], fields)

    subscriptions, pages, ids, read = portal.run(work)

    types = {name: field.type for name, field in subscriptions.fields.items()}
    assert types["plan"] == "PICKLIST"
    assert (types["seats"], types["auto_renew"], types["renews_on"]) == ("NUMBER", "BOOLEAN", "DATE")
    assert subscriptions.fields["plan"].options == {"basic": "Basic", "plus": "Plus", "pro": "Pro"}
    assert len(ids) == len(set(ids)) > 3
    assert {len(rows) for rows in pages[:-1]} == {3}
    assert [row and row["id"] for row in read] == [*ids[::-1], None]
    assert read[0]["properties"]["plan"] in {"basic", "plus", "pro"}


# ---- the sandbox, as the documents have it ----


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with lent("hubspot", people=20) as running:
        headers = {"authorization": "Bearer pat-na1-demo"}
        with httpx.Client(base_url=f"{running.address}/hubspot", headers=headers) as client:
            yield client


def test_a_batch_without_trace_ids_is_refused_as_a_whole(http: httpx.Client) -> None:
    inputs = [{"properties": {"email": email}} for email in ("fine@whole.example", "ada.king@northwind.example")]

    refused = http.post("/crm/v3/objects/contacts/batch/create", json={"inputs": inputs})

    assert (refused.status_code, refused.json()["category"]) == (409, "CONFLICT")
    assert refused.json()["message"].startswith("Contact already exists. Existing ID: ")
    assert http.get("/crm/v3/objects/contacts/fine@whole.example?idProperty=email").status_code == 404


def test_a_merge_moves_what_the_loser_had(http: httpx.Client) -> None:
    made = [
        http.post("/crm/v3/objects/contacts", json={"properties": {"email": f"{n}@merge.example"}}).json()["id"] for n in "ab"
    ]

    merged = http.post("/crm/v3/objects/contacts/merge", json={"primaryObjectId": made[0], "objectIdToMerge": made[1]})
    by_loser = http.get(f"/crm/v3/objects/contacts/{made[1]}?properties=hs_merged_object_ids,hs_additional_emails").json()

    assert merged.status_code == 200
    assert by_loser["id"] == made[0]
    assert (by_loser["properties"]["hs_merged_object_ids"], by_loser["properties"]["hs_additional_emails"]) == (
        made[1],
        "b@merge.example",
    )
    taken = http.post("/crm/v3/objects/contacts", json={"properties": {"email": "b@merge.example"}})
    assert taken.status_code == 409


@pytest.mark.parametrize("root", ["/crm/v3/objects", "/crm/objects/2026-09"])
def test_both_path_families_write(http: httpx.Client, root: str) -> None:
    made = http.post(f"{root}/contacts", json={"properties": {"email": f"family{len(root)}@x.example", "loyalty_points": 7}})
    changed = http.patch(f"{root}/contacts/{made.json()['id']}", json={"properties": {"favorite_color": "purple"}})
    gone = http.delete(f"{root}/contacts/{made.json()['id']}")

    assert (made.status_code, made.json()["properties"]["loyalty_points"]) == (201, "7")
    assert (changed.status_code, changed.json()["errors"][0]["code"]) == (400, "INVALID_OPTION")
    assert gone.status_code == 204
    assert http.get(f"{root}/contacts/{made.json()['id']}").status_code == 404


# ---- against the published shapes ----

SHAPES = {"contact": "contacts", "account": "companies", "deal": "deals", "ticket": "tickets"}


class _Heard:
    """An `Api` that keeps what goes over the wire."""

    def __init__(self, api: Api) -> None:
        self._api, self.calls = api, []  # type: ignore[var-annotated]

    async def send(self, request: Any) -> Response:
        answer = await self._api.send(request)
        self.calls.append((request, answer.status, answer.json_or_none()))
        return answer

    async def described(self, kind: Any) -> Any:
        return await self._api.described(kind)


def _fits(value: Any, named: str, shape: Any, where: str) -> None:
    """Assert that a value is of a named type of a shape file."""
    if named.startswith("list["):
        for each in value:
            _fits(each, named[5:-1], shape, where)
    elif named in shape["schemas"]:
        facts = shape["schemas"][named]
        assert value.keys() <= facts["properties"].keys(), f"{where}: {named} {sorted(value.keys() - facts['properties'].keys())}"
        assert set(facts["required"] or ()) <= value.keys(), (
            f"{where}: {named} lacks {sorted(set(facts['required']) - value.keys())}"
        )
        for name, each in value.items():
            if each is not None:
                _fits(each, facts["properties"][name], shape, f"{where}.{name}")
    elif named in {"str", "datetime"}:
        assert isinstance(value, str), where
    elif named in {"int", "bool"}:
        assert isinstance(value, {"int": int, "bool": bool}[named]), where
    elif named == "dict[str, str]":
        assert all(each is None or isinstance(each, str) for each in value.values()), where


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_requests_and_answers_fit_the_official_clients_shapes(portal: Lent, kind: Any) -> None:
    shapes = [digest("hubspot", f"{name}.shape.json") for name in (SHAPES[kind], "associations_v4")]
    row = {
        "contact": of("contact", email=f"{kind}@shape.example"), "account": of("account", name="Shape"),
        "deal": of("deal", name="Shape", stage="closedwon"), "ticket": of("ticket", subject="Shape", status="NEW"),
    }[kind]  # fmt: skip
    links = {other: [contacts(portal)[0] if other == "contact" else company(portal)] for other in KINDS[kind].links}

    async def work(adapter: Adapter, api: Api) -> list[Any]:
        heard = _Heard(api)
        [made, _] = await adapter.write(
            heard, kind, [Write(verb="create", row=row, links=links), Write(verb="create", row={"properties": {"nonsense": 1}})]
        )
        id = made.native_id or ""
        await adapter.write(
            heard, kind, [Write(verb="update", native_id=id, row=row, links=links), Write(verb="update", native_id="1", row=row)]
        )
        if kind == "contact":
            await adapter.write(heard, kind, [Write(verb="upsert", row=row, match="email")])
        await adapter.write(heard, kind, [Write(verb="delete", native_id=id)])
        return heard.calls

    for request, status, body in portal.run(work):
        operation, shape = next(
            (each, shape) for shape in shapes for each in shape["operations"]
            if each["method"] == request.method and _same(each["path"], request.path)
        )  # fmt: skip
        _fits(request.json, operation["body"], shape, request.path)
        if operation["responses"]:
            named = operation["responses"].get(str(status)) or next(iter(operation["responses"].values()))
            _fits(body, named, shape, f"{request.path} {status}")


def test_the_custom_objects_schema_fits_the_official_clients_shape(portal: Lent) -> None:
    shape = digest("hubspot", "schemas.shape.json")

    async def work(adapter: Adapter, api: Api) -> Any:
        heard = _Heard(api)
        await adapter.objects(heard)
        return heard.calls[0]

    request, _, body = portal.run(work)

    assert request.path in {each["path"] for each in shape["operations"]}
    _fits(body, "CollectionResponseObjectSchemaNoPaging", shape, "schemas")


def _same(template: str, path: str) -> bool:
    wanted, given = template.split("/"), path.split("/")
    return len(wanted) == len(given) and all(one == two or one.startswith("{") for one, two in zip(wanted, given, strict=True))


@pytest.mark.parametrize(("category", "gone"), [("OBJECT_NOT_FOUND", True), ("VALIDATION_ERROR", False)])
async def test_only_a_record_that_is_told_to_be_missing_counts_as_gone(category: str, gone: bool) -> None:
    class Partly:
        async def send(self, request: Request) -> Response:
            body = {"status": "COMPLETE", "results": [], "numErrors": 1, "errors": [{"status": "error", "category": category}]}
            return answer(207, body)

    read = HubSpot(Config(source="h", base_url="https://vendor.example")).read(Partly(), "contact", ["1"], [])  # type: ignore[arg-type]

    if gone:
        assert await read == [None]
    else:
        with pytest.raises(RejectedError):
            await read

"""What is unusual about Marketo: faults inside a 200, pages that may be empty, keys that several leads share, one token till its end."""

from collections.abc import Iterator
from typing import Any, TypeVar

import httpx
import pytest

from adapters.base import Outcome, Request, Response, Scan, Write
from model.errors import ExhaustedError, ThrottledError, UnsupportedError
from model.records import MarketingEvent
from sandbox.marketo import Marketo
from sources.source import Source
from tests.adapters.noted import Noted, System, reading, system
from tests.specifications import digest
from tests.world import world

T = TypeVar("T")
ADA = "ada.king@northwind.example"
LEADS, LEADS_POSTED, ACTIVITIES = "GET /rest/v1/leads.json", "POST /rest/v1/leads.json", "GET /rest/v1/activities.json"


class Instance(System):
    @property
    def dialect(self) -> Marketo:
        found = self.sandbox.dialects["marketo"]
        assert isinstance(found, Marketo)
        return found

    def written(self, *writes: Write, seconds: float = 30.0) -> list[Outcome]:
        return self.write("contact", *writes, seconds=seconds)

    def lead(self, native_id: str | None) -> dict[str, Any] | None:
        return self.dialect.leads.get(str(native_id))

    def having(self, email: str) -> list[dict[str, Any]]:
        return self.dialect.leads.having("email", [email])


@pytest.fixture
def instance() -> Iterator[Instance]:
    with system("marketo", people=80, made=Instance) as found:
        yield found


def ids(instance: Instance) -> list[str]:
    return [str(row["id"]) for row in instance.dialect.leads]


# ---- reading ----


def test_a_query_too_long_for_an_address_goes_in_the_body(instance: Instance) -> None:
    addresses = [f"nobody.with.a.rather.long.name.{n}@somewhere.example" for n in range(298)]

    async def work(source: Source, api: Noted) -> int:
        return len(await source.adapter.find(api, "contact", "email", [*addresses, ADA], ["id", "email"]))

    assert instance.run(work) == len(instance.having(ADA)) > 0
    assert (instance.dialect.calls[LEADS], instance.dialect.calls[LEADS_POSTED]) == (0, 1)


def test_addresses_that_too_many_leads_share_are_asked_for_in_halves(instance: Instance) -> None:
    model = next(iter(instance.dialect.leads))
    for number in range(1200):
        id = 1_500_000_000 + number
        instance.dialect.leads.put(str(id), {**model, "id": id, "email": f"shared{number % 300}@family.example"})

    async def work(source: Source, api: Noted) -> list[Any]:
        asked = [f"shared{n}@family.example" for n in range(300)]
        return await source.adapter.find(api, "contact", "email", asked, ["id", "email"])

    found = instance.run(work)

    assert len({row["id"] for row in found}) == len(found) == 1200
    assert sum(instance.dialect.calls.values()) == 1 + 1 + 4, "a token, the refusal, and two halves of two pages each"


def test_times_in_three_spellings_are_one_time(instance: Instance) -> None:
    async def work(source: Source, api: Noted) -> tuple[list[Any], dict[str, Any]]:
        rows = await source.adapter.read(api, "contact", ids(instance), ["createdAt"])
        return rows, (await source.read("contact", ids(instance), fields=["email"], reading=reading())).value

    rows, records = instance.run(work)

    assert {row["createdAt"][19:] for row in rows} == {"Z", "-08:00", "+0000"}
    created = {str(each.id): each.created for each in instance.sandbox.world.profiles["marketo"]}
    assert all(round(each.created_at.timestamp() * 1000) == created[id] // 1000 * 1000 for id, each in records.items())


def test_a_field_that_is_left_out_is_empty(instance: Instance) -> None:
    async def work(source: Source, api: Noted) -> tuple[list[Any], dict[str, Any]]:
        rows = await source.adapter.read(api, "contact", ids(instance), ["phone"])
        return rows, (await source.read("contact", ids(instance), fields=["phone"], reading=reading())).value

    rows, records = instance.run(work)

    assert {"phone" in row for row in rows if records[str(row["id"])].phone is None} == {True, False}


def test_leads_are_not_listed_and_that_is_said(instance: Instance) -> None:
    async def work(source: Source, api: Noted) -> None:
        await source.scan("contact", Scan(), fields=["email"], reading=reading())

    with pytest.raises(UnsupportedError):
        instance.run(work)


def test_custom_fields_are_told_apart_with_and_without_the_permission_to_read_the_schema(instance: Instance) -> None:
    async def custom(source: Source, api: Noted) -> dict[str, str]:
        meta = await source.adapter.describe(api, "contact")
        return {name: each.type for name, each in meta.fields.items() if each.custom}

    told = instance.run(custom)
    instance.dialect.forbidden.add("leads/schema/fields")
    guessed = instance.run(custom)

    assert told == {"favoriteColor": "TEXT", "visitCount": "NUMBER", "memberSince": "DATE"}
    assert told.items() < guessed.items()
    assert not {"email", "firstName", "phone"} & guessed.keys()


# ---- activities ----


def test_activities_go_on_while_there_are_more_however_empty_a_page_is(instance: Instance) -> None:
    async def work(source: Source, api: Noted) -> tuple[dict[str, Any], list[tuple[int, bool]]]:
        await source.adapter.related(api, "marketing_event", "contact", ids(instance)[:30], [], 50)
        pages = [(len(body["result"]), body["moreResult"]) for request, response in api.sent if (body := response.json()) and "activityTypeIds" in dict(request.params)]  # fmt: skip
        answer = await source.related("marketing_event", "contact", ids(instance), fields=["event"], first=50, reading=reading())
        return answer.value, pages

    found, pages = instance.run(work)

    assert (pages[0], pages[-1][1]) == ((0, True), False)
    assert len(pages) > 2
    told = {event.native_id: (parent, event) for parent, each in found.items() for event in each.records}
    assert told.keys() == {str(each.id) for each in instance.sandbox.world.events["marketo"]}
    for each in instance.sandbox.world.events["marketo"]:
        parent, event = told[str(each.id)]
        assert isinstance(event, MarketingEvent)
        assert (parent, event.contact_id, round(event.at.timestamp())) == (str(each.contact), str(each.contact), each.at // 1000)
        kinds = ("EMAIL_SENT", "EMAIL_DELIVERED", "EMAIL_OPENED", "EMAIL_CLICKED", "EMAIL_BOUNCED", "UNSUBSCRIBED")
        assert (event.event, event.campaign is None) == (kinds[each.what], False)


def test_only_the_first_activities_of_a_lead_are_fetched_and_more_is_told(instance: Instance) -> None:
    ada = str(next(each.id for each in instance.sandbox.world.profiles["marketo"] if each.person == 0))

    async def work(source: Source, api: Noted) -> Any:
        found = await source.related("marketing_event", "contact", [ada], fields=["at"], first=2, reading=reading())
        return found.value[ada]

    some = instance.run(work)

    at = sorted(each.at for each in instance.sandbox.world.events["marketo"] if str(each.contact) == ada)
    assert [round(each.at.timestamp() * 1000) for each in some.records] == at[:2]
    assert some.more


def test_activities_cost_a_token_and_the_pages_of_each_thirty_leads(instance: Instance) -> None:
    async def work(source: Source, api: Noted) -> None:
        await source.related("marketing_event", "contact", ids(instance)[:31], fields=["at"], first=1000, reading=reading())

    instance.run(work)

    assert instance.dialect.calls["GET /rest/v1/activities/pagingtoken.json"] == 1
    assert 4 <= instance.dialect.calls[ACTIVITIES] <= 6, "an empty page for each of two groups, and one or two full ones"


def test_a_token_that_dies_between_two_pages_is_replaced(instance: Instance) -> None:
    instance.broken("revoke_token", path=ACTIVITIES, times=1)

    async def work(source: Source, api: Noted) -> int:
        found = await source.adapter.related(api, "marketing_event", "contact", ids(instance)[:30], [], 50)
        return sum(len(each.rows) for each in found)

    assert instance.run(work) > 0
    assert instance.dialect.calls["POST /identity/oauth/token"] == 2


# ---- tokens and budgets ----


def test_a_token_with_two_seconds_left_is_used_and_replaced_when_it_has_ended(instance: Instance) -> None:
    async def check(source: Source, api: Noted) -> str:
        return (await source.adapter.check(api)).account

    async def twice(source: Source, api: Noted) -> str:
        await source.adapter.check(api)
        instance.sandbox.clock.advance(2)
        return (await source.adapter.check(api)).account

    with httpx.Client() as http:  # another integration of the same service asks for the token first
        said = {"grant_type": "client_credentials", "client_id": "marketo-demo-client", "client_secret": "marketo-demo-secret"}
        http.get(f"{instance.address}/marketo/identity/oauth/token", params=said)
    instance.sandbox.clock.advance(3600 - 60 - 2)

    assert instance.run(twice)
    assert instance.dialect.calls["POST /identity/oauth/token"] <= 3
    assert instance.run(check)


@pytest.mark.parametrize(("fault", "error"), [("throttle", ThrottledError), ("exhaust", ExhaustedError)])
def test_a_refusal_in_the_body_is_heard(instance: Instance, fault: str, error: type[Exception]) -> None:
    instance.broken(fault, path="/rest/*")

    with pytest.raises(error):
        instance.run(lambda source, api: source.adapter.check(api), seconds=3)


def test_the_daily_quota_is_parked_until_midnight(instance: Instance) -> None:
    instance.broken("exhaust", path="/rest/*")

    with pytest.raises(ExhaustedError) as told:
        instance.run(lambda source, api: source.adapter.check(api))

    assert told.value.retry_after is not None
    assert 0 < told.value.retry_after <= 86_400


# ---- writing ----


def test_each_verb_does_what_it_says(instance: Instance) -> None:
    first, second, gone = ids(instance)[:3]
    writes = [
        Write(verb="create", row={"email": "new@people.example", "firstName": "New"}),
        Write(verb="update", native_id=first, row={"firstName": "Grace", "title": None}),
        Write(verb="upsert", match="email", row={"email": "other@people.example", "lastName": "Hopper"}),
        Write(verb="upsert", match="email", row={"email": "NEW@people.example", "visitCount": 7}),
        Write(verb="delete", native_id=gone),
        Write(verb="create", row={"firstName": "Nobody", "phone": "+12125550100"}),
        Write(verb="update", native_id=second, row={"favoriteColor": "teal"}),
    ]

    done = instance.written(*writes)

    assert [each.state for each in done] == ["APPLIED"] * 7
    assert [each.created for each in done] == [None, None, True, False, None, None, None]
    assert done[3].native_id == done[0].native_id
    made, changed = instance.lead(done[0].native_id), instance.lead(first)
    assert made is not None
    assert (made["firstName"], made["visitCount"]) == ("New", 7)
    assert changed is not None
    assert (changed["firstName"], changed["title"]) == ("Grace", None)
    assert instance.lead(gone) is None
    nameless = instance.lead(done[5].native_id)
    assert nameless is not None
    assert nameless["email"] is None
    assert (instance.lead(second) or {})["favoriteColor"] == "teal"


def test_what_is_written_is_read_found_and_has_its_first_activity(instance: Instance) -> None:
    async def work(source: Source, api: Noted) -> tuple[Any, Any]:
        [made] = await source.adapter.write(api, "contact", [Write(verb="create", row={"email": "new@people.example"})])
        assert made.native_id is not None
        read = await source.read("contact", [made.native_id], fields=["email"], reading=reading())
        found = await source.find("contact", "email", ["new@people.example"], fields=["email"], reading=reading())
        return read.value[made.native_id], found.value["new@people.example"]

    read, found = instance.run(work)

    assert [each.native_id for each in found] == [read.native_id]


def test_every_record_has_an_outcome_of_its_own(instance: Instance) -> None:
    first = ids(instance)[0]
    known = next(
        row["email"] for row in instance.dialect.leads if row["email"] and len(instance.having(row["email"].lower())) == 1
    )
    twins = [{**(instance.lead(first) or {}), "id": id, "email": "twin@people.example"} for id in (1_600_000_001, 1_600_000_002)]
    for row in twins:
        instance.dialect.leads.put(str(row["id"]), row)

    done = instance.written(
        Write(verb="create", row={"email": known.upper()}),
        Write(verb="update", native_id="999999999", row={"firstName": "X"}),
        Write(verb="update", native_id=first, row={"visitCount": "many"}),
        Write(verb="create", row={"email": "fine@people.example", "shoeSize": 43}),
        Write(verb="create", row={"email": "fine2@people.example"}),
        Write(verb="upsert", match="email", row={"email": "twin@people.example", "firstName": "X"}),
        Write(verb="delete", native_id="999999998"),
        Write(verb="update", native_id="no-number", row={"firstName": "X"}),
    )

    assert [each.state for each in done] == [
        "CONFLICT", "REJECTED", "REJECTED", "REJECTED", "APPLIED", "CONFLICT", "UNCHANGED", "REJECTED",
    ]  # fmt: skip
    assert [each.error and each.error.code for each in done] == ["DUPLICATE", "NOT_FOUND", "VALIDATION", "VALIDATION", None, "DUPLICATE", None, "NOT_FOUND"]  # fmt: skip
    assert list(done[3].fields) == ["shoeSize"]
    assert all(known.lower() not in str(each.error).lower() for each in done)


def test_one_address_never_goes_twice_in_a_request(instance: Instance) -> None:
    upserts = [Write(verb="upsert", match="email", row={"email": email, "firstName": name}) for name, email in (
        ("One", "same@people.example"), ("Else", "else@people.example"), ("Two", "Same@People.example"),
    )]  # fmt: skip

    done = instance.written(*upserts)

    assert [each.created for each in done] == [True, True, False]
    assert [row["firstName"] for row in instance.having("same@people.example")] == ["Two"]


def test_the_sandbox_makes_two_leads_of_one_address_that_comes_twice_at_once(instance: Instance) -> None:
    auth = instance.dialect.demo_auth()
    said = {"grant_type": "client_credentials", "client_id": auth["client_id"], "client_secret": auth["client_secret"]}
    with httpx.Client(base_url=f"{instance.address}/marketo") as http:
        token = http.post("/identity/oauth/token", params=said).json()["access_token"]
        http.headers["authorization"] = f"Bearer {token}"
        told = http.post("/rest/v1/leads.json", json={"input": [{"email": "same@people.example"}] * 2}).json()

    assert [each["status"] for each in told["result"]] == ["created", "created"]
    assert len(instance.having("same@people.example")) == 2


def test_many_records_go_in_requests_of_three_hundred_and_below_a_megabyte(instance: Instance) -> None:
    many = [Write(verb="create", row={"email": f"p{n}@people.example"}) for n in range(650)]
    fat = [Write(verb="create", row={"email": f"f{n}@people.example", "title": "x" * 20_000}) for n in range(100)]

    done = instance.written(*many)
    calls = instance.dialect.calls[LEADS_POSTED]
    heavy = instance.written(*fat)

    assert {each.state for each in done + heavy} == {"APPLIED"}
    assert (calls, instance.dialect.calls[LEADS_POSTED]) == (3, 3)
    assert [(instance.lead(each.native_id) or {})["email"] for each in done] == [write.row["email"] for write in many]


@pytest.mark.parametrize("verb", ["create", "upsert"])
def test_a_new_lead_whose_call_had_no_clear_answer_is_unknown_and_not_sent_again(instance: Instance, verb: Any) -> None:
    instance.broken("reset", path=LEADS_POSTED)

    done = instance.written(Write(verb=verb, match="email", row={"email": "once@people.example"}))

    assert [each.state for each in done] == ["UNKNOWN"]
    assert instance.dialect.calls[LEADS_POSTED] == 1
    assert len(instance.having("once@people.example")) == 1


def test_an_update_is_sent_again(instance: Instance) -> None:
    first = ids(instance)[0]
    instance.broken("status", path=LEADS_POSTED, status=503, times=2)

    done = instance.written(Write(verb="update", native_id=first, row={"firstName": "Grace"}))

    assert [each.state for each in done] == ["APPLIED"]
    assert instance.dialect.calls[LEADS_POSTED] == 3


def test_one_request_that_fails_leaves_the_others_as_they_are(instance: Instance) -> None:
    first = ids(instance)[0]
    instance.broken("status", path="*/leads/delete.json", status=500)

    done = instance.written(
        Write(verb="delete", native_id=first), Write(verb="create", row={"email": "new@people.example"}), seconds=3
    )

    assert [each.state for each in done] == ["UNKNOWN", "APPLIED"]


def test_a_customer_is_written_through_the_graph_once_and_found_by_the_next_question() -> None:
    mutation = """mutation { customerUpsert(
      input: {emails: ["fresh@people.example"], givenName: "Fresh", familyName: "Person"},
      options: {idempotencyKey: "marketo-1", targets: ["marketo"]}
    ) { writes { state error { code message } } userErrors { code message } customer { name } } }"""
    with world(people=40, systems=("marketo",)) as running:
        said = [running.data(mutation)["customerUpsert"] for _ in range(2)]
        found = running.data('{ customer(by: {email: "fresh@people.example"}) { name } }')["customer"]
        leads = running.sandbox.dialects["marketo"].tables["contact"].having("email", ["fresh@people.example"])

    assert [each["writes"] for each in said] == [[{"state": "APPLIED", "error": None}]] * 2
    assert said[0]["customer"] == found == {"name": "Fresh Person"}
    assert len(leads) == 1


def test_a_list_through_the_graph_says_that_it_is_not_served() -> None:
    with world(people=40, systems=("marketo", "hubspot")) as running:
        listed = running.data("{ customers(first: 10) { nodes { contacts { ref { system } } } sources { source { id } state code } } }")["customers"]  # fmt: skip

    states = {each["source"]["id"]: (each["state"], each["code"]) for each in listed["sources"]}
    assert states["marketo"] == ("UNSUPPORTED", "UNSUPPORTED")
    assert "marketo" in {each["ref"]["system"] for node in listed["nodes"] for each in node["contacts"]}, (
        "found by address all the same"
    )


# ---- the published description ----


def test_requests_and_answers_fit_the_published_description(instance: Instance) -> None:
    described = digest("marketo", "marketo-lead-database.swagger.json")
    first, second = ids(instance)[:2]

    async def work(source: Source, api: Noted) -> list[tuple[Request, Response]]:
        adapter = source.adapter
        await adapter.check(api)
        await adapter.describe(api, "contact")
        await adapter.describe(api, "marketing_event")
        await adapter.read(api, "contact", ids(instance), ["email", "createdAt"])
        await adapter.find(api, "contact", "email", [ADA], ["email"])
        await adapter.related(api, "marketing_event", "contact", ids(instance), [], 20)
        await adapter.write(api, "contact", [
            Write(verb="create", row={"email": "new@people.example"}), Write(verb="update", native_id=first, row={"title": "Boss"}),
            Write(verb="upsert", match="email", row={"email": ADA, "title": "Boss"}), Write(verb="delete", native_id=second),
            Write(verb="create", row={"title": "Nobody"}), Write(verb="update", native_id="999999999", row={"title": "Boss"}),
        ])  # fmt: skip
        return api.sent

    sent = instance.run(work)

    assert len({request.path for request, _ in sent}) == 7
    assert list(misfits({"input": [{"id": "7"}], "extra": 1}, {"$ref": "#/definitions/SyncLeadRequest"}, described["definitions"])) == [
        "$.input[0].id is no integer", "$.extra is not declared",
    ]  # fmt: skip
    for request, response in sent:
        operation = described["paths"][request.path][request.method.lower()]
        declared = {each["name"]: each for each in operation.get("parameters", ())}
        assert {name for name, _ in request.params} <= declared.keys()
        assert all(
            name in dict(request.params) for name, each in declared.items() if each.get("required") and each["in"] == "query"
        )
        bodies = [each["schema"] for each in operation.get("parameters", ()) if each["in"] == "body"]
        assert (request.json is None) or list(misfits(request.json, bodies[0], described["definitions"])) == []
        assert list(misfits(response.json(), operation["responses"]["200"]["schema"], described["definitions"])) == []


OPEN = {"Lead"}  # has the instance's own fields
LEFT_OUT = {"errors", "warnings"}  # declared as required, and absent in every example


def misfits(value: Any, schema: dict[str, Any], definitions: dict[str, Any], where: str = "$") -> Iterator[str]:
    """Yield where a value is not what a Swagger schema says; a null counts as left out."""
    name = schema.get("$ref", "").rpartition("/")[2]
    schema = definitions[name] if name else schema
    match schema.get("type"):
        case "object" if "properties" in schema:
            known = schema["properties"]
            for missing in set(schema.get("required", ())) - value.keys() - LEFT_OUT:
                yield f"{where}.{missing} is missing"
            for key, each in value.items():
                if key in known and each is not None:
                    yield from misfits(each, known[key], definitions, f"{where}.{key}")
                elif key not in known and name not in OPEN:
                    yield f"{where}.{key} is not declared"
        case "array":
            if not isinstance(value, list):
                yield f"{where} is no array"
                return
            for number, each in enumerate(value):
                yield from misfits(each, schema["items"], definitions, f"{where}[{number}]")
        case "string" | "integer" | "boolean" as type:
            if not isinstance(value, {"string": str, "integer": int, "boolean": bool}[type]):
                yield f"{where} is no {type}"

"""What is unusual about Zendesk: addresses that an update only adds, limits of one record, tickets that compare times and end."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from adapters.base import Outcome, Scan, Write
from sandbox.zendesk import CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN
from sources.source import Source
from sources.writing import RecordWrite
from tests.adapters.noted import Noted, Sent, System, reading, system
from tests.specifications import digest

ADA = "ada.king@northwind.example"


@pytest.fixture
def desk() -> Iterator[System]:
    with system("zendesk") as running:
        yield running


def person(n: int, **more: Any) -> dict[str, Any]:
    return {"name": f"New Person{n}", "email": f"new{n}@people.example", **more}


def made(desk: System, kind: Any, row: dict[str, Any]) -> str:
    [outcome] = desk.write(kind, Write(verb="create", row=row))
    assert (outcome.state, outcome.created) == ("APPLIED", True)
    return str(outcome.native_id)


def asked(desk: System) -> int:
    """Return how many calls there were, those for a token left out."""
    return sum(times for path, times in desk.dialect.calls.items() if "/api/" in path)


def code(outcome: Outcome) -> str | None:
    return outcome.error.code if outcome.error else None


# ---- users ----


def test_an_address_that_changes_becomes_the_primary_one_and_the_old_one_stays(desk: System) -> None:
    id = made(desk, "contact", person(1))

    [outcome] = desk.write("contact", Write(verb="update", native_id=id, row={"email": "other@people.example"}))
    calls = asked(desk)
    [same] = desk.write("contact", Write(verb="update", native_id=id, row={"email": "Other@people.example"}))

    row = desk.row("contact", id) or {}
    assert (outcome.state, same.state) == ("APPLIED", "APPLIED")
    assert row["email"] == "other@people.example"
    assert (calls, asked(desk)) == (3, 1)
    # The old address is still theirs, so nobody else can have it.
    [twin] = desk.write("contact", Write(verb="create", row={"name": "Twin", "email": "new1@people.example"}))
    assert (twin.state, code(twin)) == ("CONFLICT", "DUPLICATE")


def test_nobody_is_mailed_for_being_entered(desk: System) -> None:
    async def work(source: Source, api: Noted) -> Sent:
        await source.adapter.write(
            api, "contact", [Write(verb="create", row=person(1)), Write(verb="upsert", match="email", row=person(2))]
        )
        return api.sent

    sent = desk.run(work)

    assert [request.json["user"]["skip_verify_email"] for request, _ in sent] == [True, True]  # type: ignore[index]


def test_an_upsert_goes_by_any_of_a_users_addresses_and_tells_what_it_did(desk: System) -> None:
    [first] = desk.write("contact", Write(verb="upsert", match="email", row=person(1)))
    desk.write("contact", Write(verb="update", native_id=first.native_id, row={"email": "other@people.example"}))
    [second] = desk.write("contact", Write(verb="upsert", match="email", row={"email": "new1@people.example", "name": "Renamed"}))

    row = desk.row("contact", first.native_id) or {}
    assert (first.created, second.created, first.native_id) == (True, False, second.native_id)
    assert (row["name"], row["email"]) == ("Renamed", "other@people.example")


def test_the_sixth_change_of_a_user_in_a_minute_waits_alone(desk: System) -> None:
    id = made(desk, "contact", person(1))

    async def work(source: Source, _: Noted) -> tuple[list[Outcome], Outcome, Any]:
        def renamed(native_id: str, name: str) -> RecordWrite:
            return RecordWrite(verb="update", native_id=native_id, values={"name": name})

        changed = [(await source.write("contact", [renamed(id, f"Name {n}")], reading(5)))[0] for n in range(6)]
        other = next(row for row in desk.dialect.tables["contact"] if row["email"] == ADA)
        [beside] = await source.write("contact", [renamed(str(other["id"]), "Ada Lovelace")], reading(5))
        return changed, beside, await source.find("contact", "email", [ADA], fields=["email"], reading=reading(5))

    changed, beside, found = desk.run(work)

    assert [each.state for each in changed] == ["APPLIED"] * 5 + ["REJECTED"]
    assert code(changed[5]) == "RATE_LIMITED"
    assert beside.state == "APPLIED"
    assert len(found.value[ADA]) == 1


def test_a_user_who_is_deleted_or_merged_is_gone(desk: System) -> None:
    merged = next(each for each in desk.sandbox.world.profiles["zendesk"] if each.deleted)
    id = desk.dialect.native("contact", merged.id)

    deleted, updated = desk.write(
        "contact", Write(verb="delete", native_id=id), Write(verb="update", native_id=id, row={"name": "Back"})
    )

    assert (deleted.state, updated.state, code(updated)) == ("UNCHANGED", "REJECTED", "NOT_FOUND")
    assert (desk.row("contact", id) or {})["active"] is False


def test_the_address_of_a_deleted_user_is_free_again(desk: System) -> None:
    id = made(desk, "contact", person(1))
    desk.write("contact", Write(verb="delete", native_id=id))

    assert made(desk, "contact", person(1)) != id


def test_a_requester_of_open_tickets_stays(desk: System) -> None:
    ticket = next(row for row in desk.dialect.tables["ticket"] if row["status"] == "open")

    [outcome] = desk.write("contact", Write(verb="delete", native_id=str(ticket["requester_id"])))

    assert outcome.state == "REJECTED"
    assert (desk.row("contact", str(ticket["requester_id"])) or {})["active"]


def test_custom_fields_are_written_by_label(desk: System) -> None:
    async def work(source: Source, _: Noted) -> tuple[Outcome, Outcome]:
        one = RecordWrite(
            verb="create", values={"name": "A B", "email": "ab@people.example"}, custom={"plan": "Plus", "seats": 3}
        )
        wrong = RecordWrite(verb="create", values={"name": "A B"}, custom={"plan": "Platinum"})
        first, second = await source.write("contact", [one, wrong], reading())
        return first, second

    first, second = desk.run(work)

    assert (desk.row("contact", first.native_id) or {})["user_fields"] == {"plan": "plus", "seats": 3}
    assert (second.state, list(second.fields)) == ("REJECTED", ["plan"])


# ---- organizations ----


def test_a_new_domain_comes_first_and_the_others_stay(desk: System) -> None:
    id = made(desk, "account", {"name": "Brand New", "domain_names": "one.example"})
    desk.write("account", Write(verb="update", native_id=id, row={"domain_names": "two.example"}))
    both = (desk.row("account", id) or {})["domain_names"]
    desk.write("account", Write(verb="update", native_id=id, row={"domain_names": None}))

    assert both == ["two.example", "one.example"]
    assert (desk.row("account", id) or {})["domain_names"] == []


def test_two_organizations_cannot_have_one_name(desk: System) -> None:
    made(desk, "account", {"name": "Brand New"})

    [twin] = desk.write("account", Write(verb="create", row={"name": "brand new"}))

    assert (twin.state, code(twin)) == ("CONFLICT", "DUPLICATE")
    assert twin.error is not None
    assert "brand" not in twin.error.message


# ---- tickets ----


@pytest.mark.parametrize("fault", ["truncate", "status"])
def test_a_ticket_whose_answer_is_lost_is_asked_for_again_under_its_key_and_made_once(desk: System, fault: str) -> None:
    before = len(desk.dialect.tables["ticket"])
    desk.broken(fault, path="*/tickets", times=1)

    [outcome] = desk.write("ticket", Write(verb="create", row={"subject": "Once"}))

    assert outcome.state == "APPLIED"
    assert len(desk.dialect.tables["ticket"]) == before + 1
    assert desk.dialect.calls["POST /api/v2/tickets"] == 2


def test_two_tickets_that_say_the_same_are_two(desk: System) -> None:
    first, second = desk.write("ticket", *[Write(verb="create", row={"subject": "Again"})] * 2)

    assert first.native_id != second.native_id


def test_a_closed_ticket_is_not_changed_any_more(desk: System) -> None:
    id = made(desk, "ticket", {"subject": "Done"})
    desk.write("ticket", Write(verb="update", native_id=id, row={"status": "closed"}))

    [late] = desk.write("ticket", Write(verb="update", native_id=id, row={"subject": "Not done"}))

    assert (late.state, code(late)) == ("REJECTED", "VALIDATION")
    assert (desk.row("ticket", id) or {})["subject"] == "Done"


@pytest.mark.parametrize("version", ["2020-01-01T00:00:00+00:00", "nonsense"])
def test_a_version_that_is_past_or_none_conflicts(desk: System, version: str) -> None:
    id = made(desk, "ticket", {"subject": "First"})

    [outcome] = desk.write("ticket", Write(verb="update", native_id=id, row={"subject": "Second"}, if_version=version))

    assert (outcome.state, code(outcome)) == ("CONFLICT", "STALE_VERSION")
    assert (desk.row("ticket", id) or {})["subject"] == "First"


def test_status_priority_and_a_custom_field_of_a_ticket_are_written_as_it_spells_them(desk: System) -> None:
    async def work(source: Source, _: Noted) -> Outcome:
        values = {"subject": "Spelled", "status": "ON_HOLD", "priority": "URGENT"}
        [outcome] = await source.write("ticket", [RecordWrite(verb="create", values=values, custom={"27642": "4711"})], reading())
        return outcome

    row = desk.row("ticket", desk.run(work).native_id) or {}

    assert (row["status"], row["priority"], row["custom_fields"]) == ("hold", "urgent", [{"id": 27642, "value": "4711"}])
    assert row["description"] == "Spelled"


# ---- what the sandbox does beyond what our adapter asks ----


@pytest.fixture
def http(desk: System) -> Iterator[httpx.Client]:
    said = {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    with httpx.Client(base_url=f"{desk.address}/zendesk") as client:
        token = client.post("/oauth/tokens", json=said).json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield client


def test_an_idempotency_key_answers_the_same_for_two_hours_and_refuses_another_request(desk: System, http: httpx.Client) -> None:
    def post(subject: str) -> httpx.Response:
        body = {"ticket": {"subject": subject, "comment": {"body": "…"}}}
        return http.post("/api/v2/tickets", json=body, headers={"Idempotency-Key": "k1"})

    first, again, other = post("a"), post("a"), post("b")
    desk.sandbox.clock.advance(7100)
    later = post("a")

    assert (first.status_code, first.headers["x-idempotency-lookup"]) == (201, "miss")
    assert (again.json(), again.headers["x-idempotency-lookup"]) == (first.json(), "hit")
    assert (other.status_code, other.json()["error"]) == (400, "IdempotentRequestError")
    assert later.headers["x-idempotency-lookup"] == "hit"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("users", {"user": {"email": "a@b.example"}}, "name"), ("users", {"user": {"name": "A", "email": "none"}}, "email"),
        ("users", {"user": {"name": "A", "organization_id": 1}}, "organization"), ("organizations", {"organization": {"name": " "}}, "name"),
        ("tickets", {"ticket": {"subject": "A"}}, "base"), ("tickets", {"ticket": {"comment": {"body": "A"}, "requester_id": 1}}, "requester"),
        ("tickets", {"ticket": {"comment": {"body": "A"}, "priority": "huge"}}, "priority"),
    ],
)  # fmt: skip
def test_what_is_not_valid_is_told_by_field(http: httpx.Client, path: str, body: dict[str, Any], field: str) -> None:
    answer = http.post(f"/api/v2/{path}.json", json=body)

    assert (answer.status_code, answer.json()["error"], list(answer.json()["details"])) == (422, "RecordInvalid", [field])


def test_a_ticket_takes_thirty_changes_in_ten_minutes_and_a_user_five_in_one(desk: System, http: httpx.Client) -> None:
    ticket = next(str(row["id"]) for row in desk.dialect.tables["ticket"] if row["status"] == "open")
    user = next(str(row["id"]) for row in desk.dialect.tables["contact"] if row["active"])

    tickets = [http.put(f"/api/v2/tickets/{ticket}", json={"ticket": {"subject": str(n)}}) for n in range(31)]
    users = [http.put(f"/api/v2/users/{user}", json={"user": {"name": str(n)}}) for n in range(6)]

    assert [each.status_code for each in tickets] == [200] * 30 + [429]
    assert [each.status_code for each in users] == [200] * 5 + [429]
    assert users[5].headers["content-type"].startswith("text/plain")
    assert 55 <= int(users[5].headers["retry-after"]) <= 61


def test_thirty_jobs_at_once_are_enough_and_a_hundred_records_in_one(desk: System, http: httpx.Client) -> None:
    body = {"users": [{"name": "A"}]}

    jobs = [http.post("/api/v2/users/create_many", json=body).status_code for _ in range(31)]
    desk.sandbox.clock.advance(2)
    large = http.post("/api/v2/users/create_many", json={"users": [{"name": "A"}] * 101})

    assert jobs == [200] * 30 + [429]
    assert (large.status_code, large.json()["error"]) == (422, "TooManyValues")


def test_the_next_page_is_a_whole_address_that_asks_the_same(http: httpx.Client) -> None:
    first = http.get("/api/v2/users/search", params={"query": "role:end-user", "per_page": 5}).json()
    second = http.get(first["next_page"]).json()

    assert {each["role"] for each in second["users"]} == {"end-user"}
    assert len(second["users"]) == 5
    assert not {each["id"] for each in first["users"]} & {each["id"] for each in second["users"]}


# ---- the published descriptions ----


BESIDE = {  # said in the reference's text; the digest, which is made from examples, does not have them
    "users": {"skip_verify_email", "locale"}, "organizations": set(), "tickets": {"safe_update", "updated_stamp"},
}  # fmt: skip


def test_requests_and_rows_are_part_of_the_published_description(desk: System) -> None:
    core = digest("zendesk", "support-core.digest.json")["paths"]
    known = {path for name in ("users", "organizations", "tickets", "search", "ticket-fields") for path in digest("zendesk", f"{name}.digest.json")["paths"]}  # fmt: skip
    ids = [str(row["id"]) for row in desk.dialect.tables["contact"]][:5]

    async def work(source: Source, api: Noted) -> Sent:
        adapter = source.adapter
        await adapter.check(api)
        for kind in adapter.kinds:
            await adapter.scan(api, kind, Scan(size=5))
        await adapter.find(api, "contact", "email", [ADA], ["email"])
        await adapter.related(api, "ticket", "contact", ids, [], 5)
        rows: dict[Any, dict[str, Any]] = {
            "contact": person(1, phone="+12125550123", locale="en-US", organization_id=str(next(iter(desk.dialect.tables["account"]))["id"])),
            "account": {"name": "Brand New", "domain_names": "new.example"}, "ticket": {"subject": "New", "requester_id": ids[0], "priority": "low", "status": "open"},
        }  # fmt: skip
        for kind, row in rows.items():
            [outcome] = await adapter.write(api, kind, [Write(verb="create", row=row)])
            version = "2100-01-01T00:00:00+00:00" if kind == "ticket" else None
            changed = {**row, "email": "other@people.example"} if kind == "contact" else row
            await adapter.write(api, kind, [Write(verb="update", native_id=outcome.native_id, row=changed, if_version=version)])
            if kind != "contact":
                await adapter.write(api, kind, [Write(verb="delete", native_id=outcome.native_id)])
        await adapter.write(
            api, "contact", [Write(verb="upsert", match="email", row=person(3)), Write(verb="delete", native_id=ids[4])]
        )
        return api.sent

    sent = desk.run(work)

    assert len(sent) >= 15
    for request, _ in sent:
        templates = [path for path in known if _fits(path, request.path)]
        assert templates, request.path
        kind = request.path.split("/")[3]
        if isinstance(request.json, dict):
            [(name, said)] = request.json.items()
            shapes = [core[path][method]["body"]["schema"]["props"][name]["props"] for path, method in ((f"/{kind}", "post"), (f"/{kind}/{{{name}_id}}", "put"))]  # fmt: skip
            assert said.keys() <= shapes[0].keys() | shapes[1].keys() | BESIDE[kind], request.operation
    for kind, name in (("contact", "user"), ("account", "organization"), ("ticket", "ticket")):
        props = core[f"/{name}s"]["post"]["responses"]["201"]["schema"]["props"][name]["props"]
        for row in desk.dialect.tables[kind]:
            assert row.get("status") == "deleted" or row.keys() <= props.keys(), kind


def _fits(template: str, path: str) -> bool:
    wanted, has = template.split("/"), path.split("/")
    return len(wanted) == len(has) and all(a.startswith("{") or a == b for a, b in zip(wanted, has, strict=True))


def test_changes_go_out_at_once_and_not_one_after_the_other(desk: System) -> None:
    """One call a record is bearable because they do not wait for each other."""
    desk.broken("latency", seconds=0.2, path="*/users")

    async def work(source: Source, api: Noted) -> float:
        await source.check(reading())
        began = asyncio.get_running_loop().time()
        await source.adapter.write(api, "contact", [Write(verb="create", row=person(n)) for n in range(8)])
        return asyncio.get_running_loop().time() - began

    assert desk.run(work) < 8 * 0.2

"""What is unusual about reading Mailchimp: three names for a member, feeds without ids, lists that slip while they are read."""

import asyncio
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.base import Request, Response, Scan, Write
from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from model.errors import ConfigurationError, SourceError
from model.records import Contact, MarketingEvent
from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sandbox.mailchimp import API_KEY, AUDIENCE, MEMBER_FILTERS, OTHER
from sources.source import Source
from tests.adapters.mailchimp_account import KEY, Account, Wire, opened, read, reading
from tests.specifications import digest
from tests.world import World, served, world

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with opened() as running:
        yield running


@pytest.fixture(scope="module")
def graph() -> Iterator[World]:
    with world(people=60, systems=["mailchimp", "hubspot"]) as running:
        yield running


# ---- who is who ----


def test_a_contact_keeps_its_id_when_the_address_changes(account: Account) -> None:
    member = account.someone()
    account.dialect.change("contact", member["contact_id"], {"email_address": "Moved.Away@new.example"})

    async def work(source: Source) -> tuple[Contact | None, dict[str, list[Any]]]:
        asked = ["moved.away@new.example", member["email_address"].lower()]
        found = (await source.find("contact", "email", asked, fields=["email"], reading=reading())).value
        return await read(source, member["contact_id"]), {
            email: [each.native_id for each in some] for email, some in found.items()
        }

    record, found = account.run(work)

    assert record is not None
    assert (record.native_id, record.email) == (member["contact_id"], "moved.away@new.example")
    assert list(found.values()) == [[member["contact_id"]], []]


def test_a_source_is_the_oldest_audience_unless_it_names_one(account: Account) -> None:
    async def work(source: Source) -> tuple[str, int]:
        page = await source.scan("contact", Scan(order="updated"), fields=["email"], reading=reading())
        return (await source.described("contact", reading())).name, len(page.value.rows)

    (oldest, some), (other, none) = account.run(work), account.run(work, list=OTHER)

    assert (oldest, other, none) == (f"lists/{AUDIENCE}/members", f"lists/{OTHER}/members", 0)
    assert some > 10


def test_an_audience_that_is_not_there_fails_the_check(account: Account) -> None:
    async def work(source: Source) -> str:
        with pytest.raises(SourceError) as raised:
            await source.check(reading())
        return raised.value.code

    assert account.run(work, list="ffffffffff") == "NOT_FOUND"


def test_bounced_and_unsubscribed_members_are_there_and_archived_ones_are_not(account: Account) -> None:
    states = ("cleaned", "unsubscribed", "pending", "transactional", "archived")
    ids = {status: account.someone(status)["contact_id"] for status in states}

    async def work(source: Source) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for status, id in ids.items():
            record = await read(source, id)
            values = await source.custom_values(record, ["status"], reading()) if record else []
            found[status] = [each.value for each in values]
        return found

    assert account.run(work) == {status: [status] if status != "archived" else [] for status in states}


def test_an_empty_date_is_none(account: Account) -> None:
    never = account.someone("transactional")["contact_id"]

    record = account.run(lambda source: read(source, never))

    assert record is not None
    assert (record.created_at, record.updated_at is not None) == (None, True)


def test_merge_fields_are_custom_fields_under_the_names_people_gave_them(account: Account) -> None:
    meta = account.run(lambda source: source.described("contact", reading()))

    tier = meta.fields["Membership tier"]
    assert (tier.path, tier.type, tier.custom, dict(tier.options)) == (
        "merge_fields.MMERGE7", "PICKLIST", True, {"Free": "Free", "Plus": "Plus", "Pro": "Pro"},
    )  # fmt: skip
    assert not meta.fields["First Name"].custom, "it has a place of its own"


@pytest.mark.parametrize(
    ("auth", "address"),
    [
        ({"scheme": "token", "token": API_KEY}, "https://us19.api.mailchimp.com/3.0"),
        ({"scheme": "basic", "username": "anyone", "password": API_KEY}, "https://us19.api.mailchimp.com/3.0"),
        ({"scheme": "token", "token": "an OAuth token"}, None),
    ],
)
def test_the_address_is_learned_from_the_key(auth: dict[str, str], address: str | None, tmp_path: Path) -> None:
    async def run() -> str:
        said = {"id": "mailchimp", "system": "mailchimp", "auth": auth}
        runtime = Runtime(Settings.model_validate({"data_dir": tmp_path, "sources": [said]}))
        try:
            await runtime.start()
            return next(iter(runtime.registry.of(WORKSPACE))).adapter.config.base_url
        finally:
            await runtime.stop()

    if address is not None:
        assert asyncio.run(run()) == address
        return
    with pytest.raises(ConfigurationError, match=r"sources\.mailchimp\.base_url is missing"):
        asyncio.run(run())


# ---- events ----


def test_events_come_with_ids_that_stay(account: Account) -> None:
    ids = [row["contact_id"] for row in account.dialect.tables["contact"] if row["status"] != "archived"]

    async def work(source: Source) -> list[dict[str, Any]]:
        names = ["event", "raw_kind", "at", "campaign", "contact_id"]
        return [
            (await source.related("marketing_event", "contact", ids, fields=names, first=first, reading=reading())).value
            for first in (50, 50, 1)
        ]

    first, again, few = account.run(work)

    events = [event for found in first.values() for event in found.records]
    assert all(isinstance(each, MarketingEvent) for each in events)
    assert {"EMAIL_SENT", "EMAIL_OPENED", "EMAIL_CLICKED", "EMAIL_BOUNCED", "UNSUBSCRIBED", "SUBSCRIBED"} == {
        each.event for each in events
    }
    assert len({each.native_id for each in events}) == len(events) > 50
    assert [each.native_id for found in again.values() for each in found.records] == [each.native_id for each in events]
    assert all(event.contact_id == id for id, found in first.items() for event in found.records)
    for id, found in first.items():
        assert [each.native_id for each in few[id].records] == [each.native_id for each in found.records[:1]]
        assert (few[id].more, found.more) == (len(found.records) > 1, False)


def test_never_more_than_eight_calls_are_open_at_once(account: Account) -> None:
    ids = [row["contact_id"] for row in account.dialect.tables["contact"] if row["status"] != "archived"][:40]
    number = account.sandbox.faults.add(Fault(system="mailchimp", fault="latency", seconds=0.02))
    account.dialect.busiest = 0

    async def work(source: Source) -> int:
        found = await source.related("marketing_event", "contact", ids, fields=["event"], first=5, reading=reading())
        return len(found.value)

    answered = account.run(work)
    account.sandbox.faults.remove(number)

    assert answered == 40
    assert 4 <= account.dialect.busiest <= 8


def test_a_403_without_a_body_is_waited_for(account: Account) -> None:
    member = account.someone()["contact_id"]
    account.sandbox.faults.add(Fault(system="mailchimp", fault="exhaust", path="*/members/{who}", times=1))

    assert account.run(lambda source: read(source, member)) is not None


def test_the_graph_shows_what_was_sent_and_done(graph: World) -> None:
    query = '{ customer(by: {email: "ada.king@northwind.example"}) { marketingEvents(first: 20) { nodes { kind rawKind at campaign } } } }'

    events = graph.data(query)["customer"]["marketingEvents"]["nodes"]

    assert {"EMAIL_SENT", "EMAIL_OPENED", "EMAIL_CLICKED"} <= {each["kind"] for each in events}
    assert all(each["campaign"] for each in events if each["kind"].startswith("EMAIL"))


# ---- lists ----


@pytest.mark.parametrize("descending", [False, True])
def test_members_who_change_while_a_group_is_read_push_nobody_out_of_it(descending: bool) -> None:
    sandbox = Sandbox(people=30, systems=["mailchimp"])
    dialect = sandbox.dialects["mailchimp"]
    before = datetime.fromtimestamp(sandbox.clock.time() + 2, UTC)
    with served(server(sandbox)) as address:
        body = {"members": [{"email_address": f"n{n}@tie.example", "status": "subscribed"} for n in range(70)]}
        httpx.post(f"{address}/mailchimp/3.0/lists/{AUDIENCE}", json=body, headers=KEY).raise_for_status()
        ids = {row["contact_id"] for row in dialect.tables["contact"] if row["email_address"].endswith("@tie.example")}

        async def work() -> tuple[set[str], set[str]]:
            async with Wire(address, {"list": AUDIENCE}) as wire:

                def move() -> None:
                    sandbox.clock.advance(10)
                    for row in wire.sent[-1][1].json()["members"][:5]:
                        moved.add(row["contact_id"])
                        dialect.change("contact", row["contact_id"], {"language": "fr"})

                moved: set[str] = set()
                wire.before[2] = wire.before[3] = move
                scan = Scan(order="updated", descending=descending, updated_since=before - HOUR, updated_before=before, size=20)
                page = await wire.adapter.scan(wire, "contact", scan)
                assert page.end
                return {row["contact_id"] for row in page.rows}, moved

        found, moved = asyncio.run(work())

    assert len(moved) >= 5
    assert found >= ids - moved


# ---- the sandbox, and the published description ----


def test_the_sandbox_speaks_as_the_documents_say(account: Account) -> None:
    members = f"lists/{AUDIENCE}/members"
    with httpx.Client(base_url=f"{account.address}/mailchimp/3.0", auth=("anyone", API_KEY)) as http:
        page = http.get(members).json()
        deep = http.get(members, params={"count": 1001})
        few = http.get(members, params={"count": 2, "exclude_fields": "_links,members._links"}).json()
        only = http.get(members, params={"count": 2, "fields": "members.id,members.merge_fields.FNAME,total_items"}).json()
        one = page["members"][0]
        upper = http.get(f"{members}/{hashlib.md5(one['email_address'].upper().encode(), usedforsecurity=False).hexdigest()}")
        names = [http.get(f"{members}/{name}").json()["id"] for name in (one["id"], one["contact_id"], one["email_address"])]
        twice = http.post(members, json={"email_address": one["email_address"], "status": "subscribed"})
        broken = http.post(members, content=b"{")
        wrong = httpx.get(f"{account.address}/mailchimp/3.0/ping", auth=("anyone", "key-us1"))
        found = http.get("search-members", params={"query": one["email_address"].lower()}).json()["exact_matches"]["members"]

    assert len(page["members"]) == 10 < page["total_items"]
    assert deep.status_code == 400
    assert "_links" in page["members"][0]
    assert "_links" not in few | few["members"][0]
    assert (only.keys(), only["members"][0].keys()) == ({"members", "total_items"}, {"id", "merge_fields"})
    assert (upper.status_code, upper.json()["title"]) == (404, "Resource Not Found")
    assert names == [one["id"]] * 3
    assert (twice.status_code, twice.json()["title"]) == (400, "Member Exists")
    assert twice.headers["content-type"].startswith("application/problem+json")
    assert broken.json()["title"] == "JSON Parse Error"
    assert (wrong.status_code, wrong.json()["title"]) == (401, "API Key Invalid")
    assert [each["id"] for each in found] == [one["id"]]


def test_the_eleventh_call_at_once_is_refused(account: Account) -> None:
    number = account.sandbox.faults.add(Fault(system="mailchimp", fault="latency", seconds=0.3))

    async def work() -> list[int]:
        async with httpx.AsyncClient(base_url=account.address, headers=KEY) as http:
            return [each.status_code for each in await asyncio.gather(*(http.get("/mailchimp/3.0/ping") for _ in range(12)))]

    found = asyncio.run(work())
    account.sandbox.faults.remove(number)

    assert (found.count(200), found.count(429)) == (10, 2)


def test_requests_and_answers_are_part_of_the_published_description(account: Account) -> None:
    paths = digest("mailchimp", "marketing-v3.digest.json")["paths"]
    member = account.someone()["contact_id"]

    async def work() -> list[tuple[Request, Response]]:
        async with Wire(account.address) as wire:
            adapter = wire.adapter
            fields = [
                "contact_id",
                "email_address",
                "merge_fields.FNAME",
                "timestamp_signup",
                "timestamp_opt",
                "last_changed",
                "sms_phone_number",
            ]
            await adapter.check(wire)
            await adapter.read(wire, "contact", [member], fields)
            await adapter.find(wire, "contact", "email", ["ada.king@northwind.example"], fields)
            await adapter.related(wire, "marketing_event", "contact", [member], ["activity_type"], 5)
            moment = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
            await adapter.scan(wire, "contact", Scan(order="updated", updated_since=moment, updated_before=moment, fields=fields))
            row = {"email_address": "spec@new.example", "merge_fields": {"FNAME": "Spec"}, "language": "en", "vip": True}
            [made] = await adapter.write(wire, "contact", [Write(verb="create", row=row)])
            several = [Write(verb="create", row={**row, "email_address": f"spec{n}@new.example"}) for n in range(2)]
            await adapter.write(wire, "contact", several)
            await adapter.write(wire, "contact", [Write(verb="upsert", match="email", row=row)])
            await adapter.write(wire, "contact", [Write(verb="update", native_id=made.native_id, row=row)])
            await adapter.write(wire, "contact", [Write(verb="delete", native_id=made.native_id)])
            return wire.sent

    sent = asyncio.run(work())

    spoken = set()
    for request, response in sent:
        if request.path == "/":  # the digest leaves the root out
            continue
        template = next(each for each in paths if re.fullmatch(re.sub(r"\{\w+\}", "[0-9a-z]+", each), request.path))
        described = paths[template][request.method.lower()]
        spoken.add((request.method, template))
        assert {name for name, _ in request.params} <= {each["name"] for each in described["params"]}
        if request.json is not None:
            assert request.json.keys() <= described["body"]["props"].keys()  # type: ignore[attr-defined]
        if response.body:
            _fits(response.json(), described["responses"]["200"])
    assert len(spoken) == 10
    assert {each["name"] for each in paths["/lists/{list_id}/members"]["get"]["params"]} >= MEMBER_FILTERS


def _fits(value: Any, schema: Any) -> None:
    """Assert that a value has no properties that its schema does not know."""
    if not isinstance(schema, dict):
        return
    if isinstance(value, list):
        for each in value:
            _fits(each, schema.get("items"))
    if isinstance(value, dict) and schema.get("props"):
        assert value.keys() <= schema["props"].keys()
        for name, each in value.items():
            _fits(each, schema["props"][name])

"""What is unusual about Zoho: errors under HTTP 200, an address that comes with the token, a 204 for nothing, roles between contacts
and deals, a verdict a record, credits, a search index that lags, custom modules."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from adapters.base import Config, Request, Response, Scan, Write
from adapters.writing import Outcome
from adapters.zoho import Zoho
from model.errors import GrantLostError, ThrottledError
from model.records import Contact, ObjectType
from sandbox.faults import Fault
from sandbox.zoho import CLIENT_ID, CLIENT_SECRET, REFRESH_TOKEN
from sources.source import Source
from sources.writing import RecordWrite
from tests.adapters.zoho_org import TOKENS, Org, Recorded, made, reading, served_org, written


@pytest.fixture
def org() -> Iterator[Org]:
    with served_org() as found:
        yield found


# ---- tokens ----


def test_many_waiting_calls_share_one_renewal(org: Org) -> None:
    async def work(source: Source) -> None:
        await asyncio.gather(*(source.check(reading()) for _ in range(40)))
        assert org.dialect.tokens is not None
        org.dialect.tokens.revoke_access()  # and the second time all of them hold a token that is dead
        await asyncio.gather(*(source.check(reading()) for _ in range(40)))

    org.run(work)

    assert org.calls[TOKENS] == 2


def test_the_eleventh_renewal_in_ten_minutes_is_refused_and_told_as_a_wait(org: Org) -> None:
    said = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}
    with httpx.Client(base_url=f"{org.address}/accounts/oauth/v2") as http:
        answers = [http.post("/token", data=said) for _ in range(11)]
        org.sandbox.clock.advance(601)
        later = http.post("/token", data=said)

    assert [each.status_code for each in answers] == [200] * 10 + [400]
    assert "access_token" in later.json()
    org.sandbox.clock.advance(601)
    for _ in range(10):
        httpx.post(f"{org.address}/accounts/oauth/v2/token", data=said)
    with pytest.raises(ThrottledError) as error:
        org.run(lambda source: source.check(reading(3)))
    assert error.value.retry_after is not None


def test_a_grant_that_is_refused_under_http_200_is_lost(org: Org) -> None:
    auth = {**org.settings[0]["auth"], "refresh_token": "1000.revoked"}

    with pytest.raises(GrantLostError) as error:
        org.run(lambda source: source.check(reading()), auth=auth)

    assert error.value.upstream_code == "invalid_code"


def test_calls_go_to_the_address_that_came_with_the_token(org: Org) -> None:
    org.run(lambda source: source.check(reading()))

    assert org.settings[0]["base_url"] == f"{org.address}/accounts"
    assert org.calls == {TOKENS: 1, "GET /crm/v8/org": 1}


# ---- reading ----


def test_times_with_the_orgs_offset_are_read_as_the_moments_they_are(org: Org) -> None:
    profile = next(each for each in org.sandbox.world.profiles["zoho"] if not each.deleted)
    id = org.dialect.native("contact", profile.id)

    async def work(source: Source) -> Any:
        return (await source.read("contact", [id], fields=["created_at"], reading=reading())).value[id]

    record = org.run(work)

    assert record.row["Created_Time"].endswith("+05:30")
    assert record.created_at == datetime.fromtimestamp(profile.created / 1000, tz=UTC)


def test_a_deal_has_all_contacts_with_a_role_the_primary_one_first(org: Org) -> None:
    deal = next(each for each in org.sandbox.world.deals["zoho"] if len(each.contacts) > 1 and not each.deleted)
    id, contacts = org.dialect.native("deal", deal.id), [org.dialect.native("contact", each) for each in deal.contacts]

    async def work(source: Source) -> tuple[list[str], set[str]]:
        of_deal = (await source.related("contact", "deal", [id], fields=["email"], first=10, reading=reading())).value[id]
        of_second = (await source.related("deal", "contact", [contacts[1]], fields=["name"], first=50, reading=reading())).value[
            contacts[1]
        ]
        return [each.native_id for each in of_deal.records], {each.native_id for each in of_second.records}

    found, deals = org.run(work)

    assert found == contacts
    assert id in deals


def test_a_relation_over_many_accounts_is_one_query(org: Org) -> None:
    used = {each.company for each in org.sandbox.world.profiles["zoho"] if not each.deleted} - {0}
    accounts = [org.dialect.native("account", each) for each in used]

    async def work(source: Source) -> int:
        await source.described("contact", reading())
        before = org.calls.get("POST /crm/v8/coql", 0)
        found = (await source.related("contact", "account", accounts, fields=["email"], first=50, reading=reading())).value
        assert all(each.records for each in found.values())
        return org.calls["POST /crm/v8/coql"] - before

    assert org.run(work) == 1


def test_a_parent_with_more_than_asked_says_so(org: Org) -> None:
    async def work(source: Source) -> tuple[bool, bool]:
        account = await made(source, "account", values={"name": "Crowded"})
        for n in range(3):
            await made(source, "contact", values={"family_name": f"One{n}"}, links={"account": [account]})
        some = (await source.related("contact", "account", [account], fields=["name"], first=2, reading=reading())).value[account]
        every = (await source.related("contact", "account", [account], fields=["name"], first=3, reading=reading())).value[
            account
        ]
        return some.more and len(some.records) == 2, every.more

    assert org.run(work) == (True, False)


def test_text_is_quoted_in_a_query(org: Org) -> None:
    async def work(source: Source) -> list[str]:
        id = await made(source, "contact", values={"family_name": "O'Hara", "email": "o'hara\\@brandnew.example"})
        found = (
            await source.find("contact", "email", ["o'hara\\@brandnew.example"], fields=["family_name"], reading=reading())
        ).value
        assert [each.native_id for records in found.values() for each in records] == [id]
        return [each.family_name or "" for records in found.values() for each in records if isinstance(each, Contact)]

    assert org.run(work) == ["O'Hara"]


def test_a_currency_that_an_org_of_one_currency_does_not_have_is_not_asked_for(org: Org, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(org.dialect.modules["Deals"].specs, "Currency")  # type: ignore[arg-type]

    async def work(source: Source) -> list[Any]:
        page = (await source.scan("deal", Scan(size=20), fields=["amount"], reading=reading())).value
        return [record.amount.currency for _, record in page.rows if record is not None]  # type: ignore[attr-defined]

    assert set(org.run(work)) == {"USD"}


# ---- writing ----


def test_each_record_of_a_call_has_its_own_outcome(org: Org) -> None:
    async def work(source: Source) -> list[Outcome]:
        await made(source, "contact", values={"family_name": "First"}, custom={"Member_Number": "M-1"})
        return await written(
            source, "contact",
            RecordWrite(verb="create", values={"family_name": "Fine"}),
            RecordWrite(verb="create", values={"family_name": "Taken"}, custom={"Member_Number": "m-1"}),
            RecordWrite(verb="create", values={"given_name": "Nameless"}),
            RecordWrite(verb="create", values={"family_name": "Lost"}, links={"account": ["5540231029999999999"]}),
            RecordWrite(verb="create", values={"family_name": "Odd", "email": "no address"}),
        )  # fmt: skip

    outcomes = org.run(work)

    assert [each.state for each in outcomes] == ["APPLIED", "CONFLICT", "REJECTED", "REJECTED", "REJECTED"]
    codes = [each.error.code for each in outcomes[1:] if each.error]
    assert codes == ["DUPLICATE", "VALIDATION", "VALIDATION", "VALIDATION"]
    assert [list(each.fields) for each in outcomes[1:]] == [["Member_Number"], ["family_name"], ["Account_Name"], ["email"]]
    assert org.calls["POST /crm/v8/{module}"] == 2


def test_a_call_whose_records_are_all_refused_still_has_an_outcome_each(org: Org) -> None:
    with org.client() as http:
        answer = http.post("/Contacts", json={"data": [{"First_Name": "A"}, {"Last_Name": "B", "Score": "many"}]})

    async def work(source: Source) -> list[Outcome]:
        gone = [RecordWrite(verb="update", native_id=f"554023101999999999{n}", values={"family_name": "X"}) for n in range(2)]
        return await written(source, "contact", *gone)

    outcomes = org.run(work)

    assert answer.status_code == 400
    assert [each["code"] for each in answer.json()["data"]] == ["MANDATORY_NOT_FOUND", "INVALID_DATA"]
    assert [(each.state, each.error and each.error.code) for each in outcomes] == [("REJECTED", "NOT_FOUND")] * 2


def test_a_hundred_and_one_records_are_two_calls(org: Org) -> None:
    async def work(source: Source) -> list[Outcome]:
        return await written(
            source, "lead", *(RecordWrite(verb="create", values={"family_name": f"L{n}", "company": "C"}) for n in range(101))
        )

    outcomes = org.run(work)

    assert {each.state for each in outcomes} == {"APPLIED"}
    assert len({each.native_id for each in outcomes}) == 101
    assert org.calls["POST /crm/v8/{module}"] == 2


def test_a_new_deal_is_tied_to_all_its_contacts_and_a_later_one_is_added(org: Org) -> None:
    async def work(source: Source) -> tuple[list[list[str]], list[str]]:
        people = [await made(source, "contact", values={"family_name": f"P{n}"}) for n in range(3)]
        deal = await made(source, "deal", values={"name": "Shared", "stage": "OPEN"}, links={"contact": people[:2]})
        [outcome] = await written(source, "deal", RecordWrite(verb="update", native_id=deal, links={"contact": [people[2]]}))
        found = []
        for each in (people[0], people[2]):
            related = (await source.related("deal", "contact", [each], fields=["name"], first=5, reading=reading())).value
            found.append([record.native_id for record in related[each].records])
        of = (await source.related("contact", "deal", [deal], fields=["name"], first=5, reading=reading())).value[deal]
        assert outcome.state == "APPLIED"
        assert [each.native_id for each in of.records] == people, "the primary one stays what it was"
        return found, [deal]

    found, deal = org.run(work)

    assert found == [deal, deal]


def test_a_deal_that_is_written_but_not_tied_says_both(org: Org) -> None:
    async def work(source: Source) -> Outcome:
        first = await made(source, "contact", values={"family_name": "There"})
        write = RecordWrite(
            verb="create", values={"name": "Half", "stage": "OPEN"}, links={"contact": [first, "5540231019999999999"]}
        )
        [outcome] = await written(source, "deal", write)
        return outcome

    outcome = org.run(work)

    assert (outcome.state, bool(outcome.native_id), list(outcome.fields)) == ("APPLIED", True, ["Contact_Roles"])
    assert outcome.error is not None
    assert outcome.error.code == "NOT_FOUND"


def test_an_upsert_keeps_to_a_version_and_a_delete_cannot(org: Org) -> None:
    email = "kept@brandnew.example"

    async def work(source: Source) -> tuple[list[str], Outcome, Any]:
        id = await made(source, "contact", values={"family_name": "Kept", "email": email})
        seen = (await source.read("contact", [id], fields=["updated_at"], reading=reading())).value[id]
        assert seen is not None
        write = RecordWrite(verb="upsert", match="email", values={"family_name": "Mine", "email": email}, if_version=seen.version)
        org.sandbox.clock.advance(2)
        outcomes = [*await written(source, "contact", write), *await written(source, "contact", write)]
        [delete] = await written(source, "contact", RecordWrite(verb="delete", native_id=id, if_version=seen.version))
        left = (await source.read("contact", [id], fields=["family_name"], reading=reading())).value[id]
        return [each.state for each in outcomes], delete, left

    states, delete, left = org.run(work)

    assert states == ["APPLIED", "CONFLICT"]
    assert (delete.state, delete.error and delete.error.code) == ("REJECTED", "UNSUPPORTED")
    assert left.family_name == "Mine"


def test_no_automation_is_set_off_unless_the_source_says_which() -> None:
    sent = [_sent(option) for option in ({}, {"trigger": "workflow,blueprint"})]

    assert [orjson.loads(orjson.dumps(each[0].json))["trigger"] for each in sent] == [[], ["workflow", "blueprint"]]
    assert [dict(each[1].params)["wf_trigger"] for each in sent] == ["false", "true"]


def _sent(options: dict[str, str]) -> list[Request]:
    """Return the requests of a create and a delete."""
    verdict = orjson.dumps({"data": [{"status": "success", "details": {"id": "1"}}]})
    api = Recorded(lambda _: Response(status=200, headers={}, body=verdict))
    adapter = Zoho(Config(source="zoho", base_url="https://accounts.vendor.example", options=options))
    asyncio.run(
        adapter.write(api, "contact", [Write(verb="create", row={"Last_Name": "X"}), Write(verb="delete", native_id="1")])
    )
    return api.requests


def test_times_are_written_with_an_offset_and_without_fractions() -> None:
    api = Recorded(lambda _: Response(status=201, headers={}, body=b'{"data":[{"status":"success","details":{"id":"1"}}]}'))
    adapter = Zoho(Config(source="zoho", base_url="https://accounts.vendor.example"))

    asyncio.run(
        adapter.write(api, "contact", [Write(verb="create", row={"Seen_At": "2026-07-01T12:00:00.250Z", "Born": "2000-01-01"})])
    )

    body: Any = api.requests[0].json
    assert body["data"] == [{"Seen_At": "2026-07-01T12:00:00+00:00", "Born": "2000-01-01"}]


# ---- custom modules ----


def test_a_custom_module_is_described_read_and_walked(org: Org) -> None:
    entries = [each for each in org.sandbox.world.profiles["zoho"] if each.number % 3 == 0 and not each.deleted]

    async def work(source: Source) -> tuple[ObjectType, list[Any], list[Any]]:
        [object] = await source.objects(reading())
        found: list[Any] = []
        after: str | None = None
        while True:
            rows, after = await source.scan_custom(object, after=after, size=7, keys=None, reading=reading())
            found += rows
            if after is None:
                break
        some = await source.read_custom(
            object, [found[3].native_id, "5540231909999999999", found[0].native_id], ["Seats"], reading()
        )
        return object, found, list(some)

    object, found, some = org.run(work)

    kinds = {name: field.type for name, field in object.fields.items() if field.custom}
    assert (object.name, object.label, object.custom) == ("Subscriptions", "Subscription", True)
    assert kinds == {"Seats": "NUMBER", "Plan": "PICKLIST", "Subscriber": "REFERENCE", "Renews_At": "DATETIME"}
    assert object.fields["Plan"].options == {"Basic": "Basic", "Team": "Team", "Enterprise": "Enterprise"}
    ids = [each.native_id for each in found]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(entries) > 14
    assert {each.row["Subscriber"]["id"] for each in found} == {org.dialect.native("contact", each.id) for each in entries}
    assert [each and each.native_id for each in some] == [ids[3], None, ids[0]]
    assert set(some[0].row) == {"id", "Seats"}


def test_too_many_at_once_is_a_short_wait(org: Org) -> None:
    async def work(source: Source) -> Any:
        await source.check(reading())
        org.sandbox.faults.add(Fault(system="zoho", fault="throttle", times=1))
        return await source.check(reading(20))

    assert org.run(work).account


def test_an_orgs_own_budgets_are_options_of_its_source() -> None:
    adapter = Zoho(Config(source="zoho", base_url="https://accounts.vendor.example", options={"credits": "3000000"}))

    assert {each.name: each.limit for each in adapter.windows} == {"credits": 3_000_000, "parallel": 10}
    assert {each.name: each.limit for each in Zoho.windows} == {"credits": 50_000, "parallel": 10}

"""Marketo's log of changes and the calls of its campaigns. Contract: tests/adapters/test_changes.py; here is what is unusual."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from adapters.base import Request, Response
from adapters.changes import Change, Delivery
from adapters.marketo import Marketo
from adapters.writing import Write
from model.errors import CursorExpiredError, ProtocolError, SignatureError, UnsupportedError
from sandbox.marketo import Marketo as Dialect
from sources.source import Source
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import Noted, System, system

SECRET = "f3a9c2e1b7d84450a6c1"
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
FIELDS = ("id", "email", "firstName", "title", "favoriteColor", "updatedAt")
CHANGES, ACTIVITIES = "GET /rest/v1/activities/leadchanges.json", "GET /rest/v1/activities.json"
DELETED, TOKEN, LEADS = (
    "GET /rest/v1/activities/deletedleads.json",
    "GET /rest/v1/activities/pagingtoken.json",
    "GET /rest/v1/leads.json",
)


class Instance(System):
    @property
    def dialect(self) -> Dialect:
        found = self.sandbox.dialects["marketo"]
        assert isinstance(found, Dialect)
        return found

    def ids(self) -> list[str]:
        return [str(row["id"]) for row in self.dialect.leads]

    def passed(self, follower: Follower) -> list[Change]:
        return self.run(lambda source, api: follower.passed(source.adapter, api))

    def follower(self) -> Follower:
        made = Follower("contact", FIELDS)
        assert self.passed(made) == [], "what was there before is no change"
        return made


@pytest.fixture
def instance() -> Iterator[Instance]:
    with system("marketo", people=80, made=Instance) as found:
        yield found


@pytest.fixture
def hears() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


# ---- the log ----


def test_values_custom_values_and_new_leads_are_told_by_the_log(instance: Instance) -> None:
    follower = instance.follower()
    one, other, deleted, *_ = instance.ids()
    instance.dialect.change("contact", one, {"title": "Captain"})
    instance.dialect.change("contact", other, {"favoriteColor": "teal"})
    instance.dialect.delete("contact", deleted)
    [made] = instance.write("contact", Write(verb="create", row={"email": "new@somewhere.example"}))

    told = {each.native_id: each for each in instance.passed(follower)}

    assert {id: each.op for id, each in told.items()} == {
        one: "CHANGED",
        other: "CHANGED",
        deleted: "DELETED",
        made.native_id: "CHANGED",
    }
    assert all(each.at is not None and each.row is None for each in told.values())


def test_a_quiet_pass_takes_three_calls_and_costs_no_listing_of_anything(instance: Instance) -> None:
    follower = instance.follower()

    instance.passed(follower)

    calls = {name: many for name, many in instance.dialect.calls.items() if "oauth" not in name}
    assert calls == {CHANGES: 1, ACTIVITIES: 1, DELETED: 1}


def test_a_field_that_nobody_asked_for_is_not_told(instance: Instance) -> None:
    follower = instance.follower()
    instance.dialect.change("contact", instance.ids()[0], {"country": "Peru"})

    assert instance.passed(follower) == []


def test_a_score_is_told_although_it_is_no_change_of_a_value(instance: Instance) -> None:
    follower = instance.follower()
    lead = instance.ids()[0]
    instance.dialect.log.add(int(instance.sandbox.clock.time() * 1000), int(lead), 22, 0)

    assert ids(instance.passed(follower)) == {lead}


def test_merged_leads_go_into_the_one_that_is_there(instance: Instance) -> None:
    follower = instance.follower()
    loser, winner, deleted, *_ = instance.ids()
    instance.dialect.merge("contact", loser, winner)
    instance.dialect.delete("contact", deleted)

    told = {each.native_id: each for each in instance.passed(follower)}

    assert (told[loser].op, told[loser].into) == ("MERGED", winner)
    assert (told[winner].op, told[deleted].op) == ("CHANGED", "DELETED")
    assert instance.dialect.calls[LEADS] == 1, "who lives on is read, all merges at once"


def test_a_winner_that_was_merged_away_hands_its_losers_on(instance: Instance) -> None:
    follower = instance.follower()
    first, second, third, fourth, *_ = instance.ids()
    instance.dialect.merge("contact", first, second)
    instance.dialect.merge("contact", second, third)
    instance.dialect.merge("contact", third, fourth)

    told = {each.native_id: each for each in instance.passed(follower)}

    assert {id: told[id].into for id in (first, second, third)} == dict.fromkeys((first, second, third), fourth)


def test_a_merge_whose_winner_is_deleted_leaves_nobody(instance: Instance) -> None:
    follower = instance.follower()
    loser, winner, *_ = instance.ids()
    instance.dialect.merge("contact", loser, winner)
    instance.dialect.delete("contact", winner)

    assert {(each.native_id, each.op) for each in instance.passed(follower)} == {(loser, "DELETED"), (winner, "DELETED")}


def test_a_merge_between_the_log_and_the_list_of_the_deleted_is_still_a_merge(instance: Instance) -> None:
    follower = instance.follower()
    loser, winner, *_ = instance.ids()

    class Meanwhile(Noted):
        async def send(self, request: Request) -> Response:
            if request.path.endswith("deletedleads.json") and instance.dialect.leads.get(loser) is not None:
                instance.dialect.merge("contact", loser, winner)
            return await Noted.send(self, request)

    async def work(source: Source, api: Noted) -> list[Change]:
        return await follower.passed(source.adapter, Meanwhile(api.inner))

    told = {each.native_id: each for each in instance.run(work)}

    assert (told[loser].op, told[loser].into) == ("MERGED", winner)


def test_short_and_empty_pages_do_not_end_a_pass(instance: Instance) -> None:
    follower = instance.follower()
    model = next(iter(instance.dialect.leads))
    at = int(instance.sandbox.clock.time() * 1000)
    for _ in range(4000):  # of a field that is not asked for: more than one page looks through
        instance.dialect.log.add(at, model["id"], 13, ("country", None, "Peru"))
    lead = instance.ids()[-1]
    instance.dialect.change("contact", lead, {"title": "Captain"})

    assert ids(instance.passed(follower)) == {lead}
    assert instance.dialect.calls[CHANGES] > 1


def test_many_changes_of_one_moment_are_told_in_several_pages_and_few_calls(instance: Instance) -> None:
    model = next(iter(instance.dialect.leads))
    for number in range(700):
        id = 1_500_000_000 + number
        instance.dialect.leads.put(str(id), {**model, "id": id, "email": f"many{number}@somewhere.example"})
    follower = instance.follower()
    changed = [str(1_500_000_000 + number) for number in range(700)]
    for lead in changed:
        instance.dialect.change("contact", lead, {"title": "Captain"})

    told = instance.passed(follower)

    assert ids(told) == set(changed)
    assert follower.pages > 1
    # Three pages of changes; the two other logs; the first page of each behind a date is empty.
    assert instance.dialect.calls[CHANGES] + instance.dialect.calls[ACTIVITIES] + instance.dialect.calls[DELETED] == 8


def test_what_is_written_into_the_log_with_an_older_time_is_told(instance: Instance) -> None:
    follower = instance.follower()
    other, late, *_ = instance.ids()

    async def changed(source: Source, api: Noted) -> list[Change]:
        instance.dialect.change("contact", other, {"title": f"Captain {follower.now}"})
        return await follower.passed(source.adapter, api)

    for _ in range(6):  # the log goes on, and tokens with it
        follower.now += timedelta(seconds=60)
        instance.run(changed)
    with instance.sandbox.clock.behind(115):
        instance.dialect.change("contact", late, {"title": "Captain"})
    follower.now += timedelta(seconds=60)

    assert ids(instance.passed(follower)) == {other, late}


def test_what_was_told_long_ago_is_not_told_again_for_ever(instance: Instance) -> None:
    follower = instance.follower()
    instance.dialect.change("contact", instance.ids()[0], {"title": "Captain"})
    told = []
    for _ in range(6):
        follower.now += timedelta(seconds=60)
        told.append(len(instance.passed(follower)))

    assert told[0] == 1
    assert told[-1] == 0
    assert len(follower.cursor or "") < 2000


def test_a_clock_of_ours_that_is_ahead_loses_nothing(instance: Instance) -> None:
    follower = Follower("contact", FIELDS, now=datetime.now(UTC) + timedelta(hours=5))
    instance.passed(follower)
    assert instance.dialect.calls[TOKEN] == 2
    lead = instance.ids()[0]
    instance.dialect.change("contact", lead, {"title": "Captain"})

    assert ids(instance.passed(follower)) == {lead}


def test_a_cursor_of_longer_ago_than_deletions_are_listed_is_no_good(instance: Instance) -> None:
    follower = instance.follower()
    follower.now += timedelta(days=15)

    with pytest.raises(CursorExpiredError):
        instance.passed(follower)


def test_a_token_that_is_refused_begins_anew(instance: Instance) -> None:
    follower = instance.follower()
    follower.cursor = (follower.cursor or "").replace('======"', 'x1"')

    with pytest.raises(CursorExpiredError):
        instance.passed(follower)


def test_many_fields_go_in_the_body(instance: Instance) -> None:
    follower = Follower("contact", [*FIELDS, *(["title"] * 1500)])
    instance.passed(follower)

    assert instance.passed(follower) == []
    assert instance.dialect.calls["POST /rest/v1/activities/leadchanges.json"] == 1


def test_marketing_events_have_no_feed(instance: Instance) -> None:
    with pytest.raises(UnsupportedError):
        instance.run(lambda source, api: source.adapter.changes(api, "marketing_event", None, (), now=NOW))


# ---- calls of campaigns ----


def call(body: bytes = b'{"id": "775"}', *, secret: str = SECRET) -> Delivery:
    headers = {"x-customer360-secret": secret}
    return Delivery(method="POST", url="https://c360.example/webhooks/m", headers=headers, body=body, at=NOW)


@pytest.mark.parametrize("body", [b'{"id": "775"}', b'{"id": 775}', b'{"id":"775","name":"x"}'])
def test_the_template_of_a_call_gives_the_id_alone(body: bytes) -> None:
    heard = Marketo.events(call(body), ["another", SECRET])

    assert [hint.change for hint in heard.hints] == [Change(kind="contact", native_id="775")]


def test_the_secret_may_stand_in_the_address() -> None:
    assert Marketo.events(replace(call(secret=""), query={"secret": SECRET}), [SECRET]).hints


@pytest.mark.parametrize(("said", "known"), [("", [SECRET]), (SECRET[:-1], [SECRET]), ("", [""]), (SECRET, []), ("ÿ", [SECRET])])
def test_a_call_without_our_secret_is_refused(said: str, known: list[str]) -> None:
    with pytest.raises(SignatureError):
        Marketo.events(call(secret=said), known)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"775", b'{"id": ""}', b'{"id": "a@b.example"}', b'{"id": -1}', b'{"id": true}', '{"id": "\u00b2"}'.encode()],
)
def test_a_call_that_names_no_lead_is_not_understood(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Marketo.events(call(body), [SECRET])


def test_two_calls_for_one_lead_are_two_events() -> None:
    first, second = call(), replace(call(), at=NOW + timedelta(milliseconds=1))

    [one], [two] = (Marketo.events(each, [SECRET]).hints for each in (first, second))

    assert one.id != two.id
    assert Marketo.events(first, [SECRET]).hints[0].id == one.id


def test_campaigns_call_for_edits_by_hand_and_by_api_and_for_new_leads(instance: Instance, hears: Receiver) -> None:
    instance.dialect.hook(hears.url, SECRET)
    one, other, same, *_ = instance.ids()
    row = instance.dialect.leads.get(same)
    assert row is not None
    instance.dialect.change("contact", same, {"title": row["title"]})
    instance.dialect.delete("contact", instance.ids()[-1])
    instance.dialect.change("contact", one, {"favoriteColor": "teal"})
    _, made = instance.write(
        "contact",
        Write(verb="update", native_id=other, row={"title": "Captain"}),
        Write(verb="create", row={"email": "new@somewhere.example"}),
    )

    came = hears.wait(lambda deliveries: len(deliveries) >= 3)

    told = [hint.change for each in came for hint in Marketo.events(each, [SECRET]).hints]
    assert {each.native_id for each in told} == {one, other, made.native_id}
    assert all(each.op == "CHANGED" for each in told)
    assert [each["url"] for each in instance.dialect.subscriptions()] == [hears.url]


def test_a_call_that_fails_is_not_made_again(instance: Instance, hears: Receiver) -> None:
    hears.status = 500
    instance.dialect.hook(hears.url, SECRET)
    instance.dialect.change("contact", instance.ids()[0], {"title": "Captain"})
    hears.wait(lambda deliveries: len(deliveries) == 1)
    instance.sandbox.clock.advance(86_400)

    assert not instance.dialect.outbox.busy() or hears.wait(lambda deliveries: len(deliveries) == 1)
    assert len(hears.deliveries) == 1

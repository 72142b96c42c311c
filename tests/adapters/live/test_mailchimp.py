"""Mailchimp's webhooks and feed. Contract: tests/adapters/test_changes.py; here is what is unusual."""

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from adapters.changes import Change, Delivery, Hint, Watch
from adapters.mailchimp import Mailchimp
from adapters.writing import Write
from model.errors import ProtocolError, SignatureError, UnsupportedError
from sandbox.mailchimp import API_KEY, AUDIENCE
from sandbox.mailchimp import Mailchimp as Dialect
from tests.adapters.live.following import Follower, ids
from tests.adapters.live.receiver import Receiver, receiver
from tests.adapters.noted import System, system

SENT = datetime.fromtimestamp(1674087231, tz=UTC)
VECTOR = b"type=unsubscribe&fired_at=2009-03-26+21%3A40%3A57&data%5Bid%5D=8a25ff1d98"
ADA = "1eb908bd62ad412d2ef7be9ed90c1177"  # the md5 of ada.king@northwind.example
FIELDS = ("contact_id", "email_address", "merge_fields.FNAME", "last_changed")
MEMBERS = "GET /3.0/lists/{list}/members"
HOOKS = "/3.0/lists/{list}/webhooks"


class Account(System):
    @property
    def dialect(self) -> Dialect:
        found = self.sandbox.dialects["mailchimp"]
        assert isinstance(found, Dialect)
        return found

    def someone(self, status: str = "subscribed") -> list[dict[str, Any]]:
        return [row for row in self.dialect.tables["contact"] if row["status"] == status]

    def passed(self, follower: Follower) -> list[Change]:
        return self.run(lambda source, api: follower.passed(source.adapter, api))

    def follower(self) -> Follower:
        made = Follower("contact", FIELDS)
        assert self.passed(made) == []
        self.passed(made)  # the youngest, again: the overlap
        return made

    def watched(self, url: str) -> list[Watch]:
        return self.run(lambda source, api: source.adapter.watch(api, url, ""))

    def named(self, hints: list[Hint]) -> list[str | None]:
        names = [hint.change.native_id for hint in hints]
        return self.run(lambda source, api: source.adapter.named(api, "contact", names))

    def api(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call as another app of the account does."""
        url = f"{self.address}/mailchimp/3.0/lists/{AUDIENCE}{path}"
        return httpx.request(method, url, headers={"authorization": f"Bearer {API_KEY}"}, **more)


@pytest.fixture
def account() -> Iterator[Account]:
    with system("mailchimp", people=80, made=Account) as found:
        yield found


@pytest.fixture
def hears() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


def signed(body: bytes, *, secret: str = "sec", sent: datetime = SENT, header: str | None = None) -> Delivery:
    stamp = str(int(sent.timestamp()))
    mac = hmac.digest(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hex()
    headers = {"x-mailchimp-signature": f"t={stamp},v1={mac}" if header is None else header}
    return Delivery(method="POST", url="https://c360.example/webhooks/m", headers=headers, body=body, at=SENT)


def soon(true: Callable[[], bool]) -> None:
    """Wait for the sandbox's own thread."""
    until = time.monotonic() + 5
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def form(what: str, **data: str) -> bytes:
    return urlencode(
        {"type": what, "fired_at": "2009-03-26 21:35:57", **{f"data[{name}]": value for name, value in data.items()}}
    ).encode()


def told(body: bytes) -> list[Change]:
    return [hint.change for hint in Mailchimp.events(signed(body), ["sec"]).hints]


# ---- proof ----


def test_the_public_vector_is_proved() -> None:
    delivery = signed(VECTOR, header="t=1674087231,v1=d07894a4ed866900a2fe1b1fed2a8330b043784a93eb54cdf8f79b678a10a3c1")

    with pytest.raises(ProtocolError):  # proved, and names nobody
        Mailchimp.events(delivery, ["other", "sec"])
    with pytest.raises(SignatureError):
        Mailchimp.events(replace(delivery, body=VECTOR[:-1]), ["sec"])


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1674087231",
        "v1=d0",
        "t=1674087231,v1=",
        "t=1674087231,v0=d07894",
        "t=soon,v1=d0",
        "t=²,v1=ÿ",
        f"t={'9' * 30},v1=d0",
    ],
)
def test_a_signature_that_is_none_is_refused_whatever_the_address_says(header: str) -> None:
    with pytest.raises(SignatureError):
        Mailchimp.events(replace(signed(VECTOR, header=header), query={"token": "sec"}), ["sec"])


@pytest.mark.parametrize(("secret", "known"), [("another", ["sec"]), ("", [""]), ("sec", [])])
def test_another_secret_and_none_prove_nothing(secret: str, known: list[str]) -> None:
    with pytest.raises(SignatureError):
        Mailchimp.events(signed(VECTOR, secret=secret), known)


@pytest.mark.parametrize("late", [timedelta(minutes=6), -timedelta(minutes=6)])
def test_a_signature_of_another_time_is_refused(late: timedelta) -> None:
    with pytest.raises(SignatureError):
        Mailchimp.events(signed(form("campaign", id="x"), sent=SENT - late), ["sec"])


def test_one_of_two_signatures_will_do_while_a_secret_is_changed() -> None:
    good = signed(form("campaign", id="x")).headers["x-mailchimp-signature"]

    assert Mailchimp.events(signed(form("campaign", id="x"), header=good.replace(",", ",v1=00,")), ["sec"]).hints == ()


@pytest.mark.parametrize(("word", "known"), [("", ["word"]), ("wor", ["word"]), ("", [""]), ("word", [])])
def test_a_delivery_that_is_not_signed_must_come_to_the_address_with_our_word(word: str, known: list[str]) -> None:
    unsigned = Delivery(
        method="POST", url="https://c360.example/webhooks/m", headers={}, body=form("profile", email="a@b.example"), at=SENT
    )
    assert Mailchimp.events(replace(unsigned, query={"token": "word"}), ["new", "word"]).hints

    with pytest.raises(SignatureError):
        Mailchimp.events(replace(unsigned, query={"token": word}), known)


def test_the_look_at_an_address_is_answered_before_there_is_a_secret() -> None:
    look = Delivery(method="GET", url="https://c360.example/webhooks/m", headers={}, body=b"", at=SENT)

    assert Mailchimp.events(look, []).hints == ()


# ---- what is said ----


@pytest.mark.parametrize(
    ("body", "op"),
    [
        (
            form("subscribe", id="8a25ff1d98", list_id="a6b5da1054", email="Ada.King@northwind.example", email_type="html"),
            "CHANGED",
        ),
        (form("unsubscribe", action="unsub", reason="manual", email="ada.king@northwind.example"), "CHANGED"),
        (form("unsubscribe", action="delete", reason="manual", email="Ada.King@northwind.example"), "DELETED"),
        (form("profile", email="Ada.King@northwind.example"), "CHANGED"),
        (form("cleaned", campaign_id="4fjk2ma9xd", reason="hard", email="Ada.King@northwind.example"), "CHANGED"),
        (
            form("upemail", new_id="51da8c3259", new_email="Ada.King@northwind.example", old_email="old@somewhere.example"),
            "CHANGED",
        ),
    ],
)
def test_a_member_is_named_by_the_hash_of_the_address(body: bytes, op: Any) -> None:
    assert told(body) == [Change(kind="contact", native_id=ADA, op=op)]


@pytest.mark.parametrize("body", [form("campaign", id="5aa2102003", status="sent"), form("tag_added", email="a@b.example")])
def test_what_is_of_no_member_or_not_known_hints_at_nothing(body: bytes) -> None:
    assert told(body) == []


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xff=\xfe", form("profile"), form("upemail", email="a@b.example"), b"type=profile&data[email]=%ff"]
)
def test_a_body_that_names_nobody_is_not_understood(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        told(body)


def test_what_is_sent_again_is_the_same_event_and_another_edit_of_that_second_is_not() -> None:
    first = form("profile", email="a@b.example", merges="Ada")
    again = signed(first, sent=SENT + timedelta(seconds=60))

    [one], [two], [other] = (
        Mailchimp.events(each, ["sec"]).hints
        for each in (signed(first), again, signed(form("profile", email="a@b.example", merges="Eve")))
    )

    assert one.id == two.id != other.id


# ---- webhooks of the sandbox ----


def test_changes_by_hand_and_by_api_arrive_signed_and_name_who_they_are_of(account: Account, hears: Receiver) -> None:
    [made] = account.watched(hears.url)
    assert made.secret
    assert hears.deliveries[0].method == "GET", "the vendor looked whether somebody is there"
    one, other, gone, bounced, same, *_ = account.someone()
    account.dialect.change("contact", one["contact_id"], {"merge_fields": {"FNAME": "Ada"}})
    account.dialect.change("contact", same["contact_id"], {"merge_fields": {"FNAME": same["merge_fields"]["FNAME"]}})
    account.api("PATCH", f"/members/{other['id']}", json={"status": "unsubscribed"})
    account.api("DELETE", f"/members/{gone['contact_id']}")
    account.dialect.change("contact", bounced["contact_id"], {"status": "cleaned"})
    account.api("POST", "/members", json={"email_address": "new@somewhere.example", "status": "subscribed"})

    came = hears.wait(lambda deliveries: len(deliveries) >= 6)[1:]

    hints = [hint for each in came for hint in Mailchimp.events(each, [made.secret or ""]).hints]
    named = dict(zip(account.named(hints), hints, strict=True))
    new = account.api("GET", "/members/new@somewhere.example").json()["contact_id"]
    assert {id: hint.change.op for id, hint in named.items()} == {
        one["contact_id"]: "CHANGED", other["contact_id"]: "CHANGED", gone["contact_id"]: "DELETED", bounced["contact_id"]: "CHANGED", new: "CHANGED",
    }  # fmt: skip
    soon(lambda: not account.dialect.outbox.busy())


def test_who_changes_the_address_stays_who_they_are(account: Account, hears: Receiver) -> None:
    [made] = account.watched(hears.url)
    member = account.someone()[0]
    account.api("PATCH", f"/members/{member['id']}", json={"email_address": "Other@somewhere.example"})

    came = hears.wait(lambda deliveries: len(deliveries) >= 3)[1:]

    hints = [hint for each in came for hint in Mailchimp.events(each, [made.secret or ""]).hints]
    assert account.named(hints) == [member["contact_id"]] * 2, "an upemail and a profile"
    assert {hint.change.op for hint in hints} == {"CHANGED"}


def test_a_webhook_that_is_not_signed_is_known_by_its_address(account: Account, hears: Receiver) -> None:
    account.dialect.hooks.signing = False
    [made] = account.watched(hears.url)
    account.dialect.change("contact", account.someone()[0]["contact_id"], {"merge_fields": {"FNAME": "Ada"}})

    delivery = hears.wait(lambda deliveries: len(deliveries) >= 2)[1]

    assert "x-mailchimp-signature" not in delivery.headers
    assert Mailchimp.events(delivery, [made.secret or ""]).hints
    with pytest.raises(SignatureError):
        Mailchimp.events(replace(delivery, query={}), [made.secret or ""])
    assert account.watched(hears.url) == [made], "its word stands in the list"


def test_looking_after_what_is_good_makes_nothing_and_ends_what_is_too_many(account: Account, hears: Receiver) -> None:
    [made] = account.watched(hears.url)
    account.api("POST", "/webhooks", json={"url": f"{hears.url}?token=x", "events": {"profile": True}, "sources": {"user": True}})
    account.api("POST", "/webhooks", json={"url": f"{hears.url}?other=x", "events": {}, "sources": {}})

    [kept] = account.watched(hears.url)

    assert (kept.native_id, kept.secret) == (made.native_id, None), "a signing secret is told once"
    assert {name: many for name, many in account.dialect.calls.items() if "webhooks" in name} == {
        f"GET {HOOKS}": 1,
        f"DELETE {HOOKS}/{{hook}}": 1,
    }
    assert {each["url"].partition("?")[2].partition("=")[0] for each in account.dialect.subscriptions()} == {"token", "other"}
    assert len(account.dialect.subscriptions()) == 2


def test_a_webhook_that_sends_too_little_is_mended_and_one_that_was_dropped_is_made_anew(
    account: Account, hears: Receiver
) -> None:
    [made] = account.watched(hears.url)
    account.api("PATCH", f"/webhooks/{made.native_id}", json={"sources": {"api": False}})
    account.watched(hears.url)
    assert account.api("GET", f"/webhooks/{made.native_id}").json()["sources"] == {"user": True, "admin": True, "api": True}

    hears.status = 500
    for number, row in enumerate(account.someone()[:3]):
        account.dialect.change("contact", row["contact_id"], {"merge_fields": {"FNAME": f"Ada{number}"}})
    for attempt in range(1, 7):
        soon(lambda most=attempt: [len(each.attempts) for each in account.dialect.outbox.log] == [most] * 3)  # type: ignore[misc]
        account.sandbox.clock.advance(2400)
    hears.status = 200
    soon(lambda: account.dialect.subscriptions() == [])

    [anew] = account.watched(hears.url)
    assert anew.native_id != made.native_id
    assert anew.secret not in {None, made.secret}


def test_the_sandbox_tells_a_webhook_only_of_the_sources_it_names(account: Account, hears: Receiver) -> None:
    events = {"profile": True}
    account.api("POST", "/webhooks", json={"url": f"{hears.url}?of=hands", "events": events, "sources": {"admin": True}})
    account.api("POST", "/webhooks", json={"url": f"{hears.url}?of=api", "events": events, "sources": {"api": True}})
    one, other, *_ = account.someone()
    account.api("PATCH", f"/members/{one['id']}", json={"merge_fields": {"FNAME": "Ada"}})
    account.dialect.change("contact", other["contact_id"], {"merge_fields": {"FNAME": "Eve"}})

    came = hears.wait(lambda deliveries: len(deliveries) >= 4)
    soon(lambda: not account.dialect.outbox.busy())

    assert {(each.query["of"], b"FNAME%5D=Ada" in each.body) for each in came if each.method == "POST"} == {
        ("hands", False),
        ("api", True),
    }
    assert len(hears.deliveries) == 4


def test_unwatching_ends_ours_and_nobody_elses(account: Account, hears: Receiver) -> None:
    account.watched(hears.url)
    account.api("POST", "/webhooks", json={"url": f"{hears.url}?other=x", "events": {}, "sources": {}})

    assert account.run(lambda source, api: source.adapter.unwatch(api, hears.url)) == 1
    assert account.run(lambda source, api: source.adapter.unwatch(api, hears.url)) == 0
    assert len(account.dialect.subscriptions()) == 1


def test_an_address_where_nobody_answers_cannot_be_watched(account: Account, hears: Receiver) -> None:
    hears.status = 404
    assert account.api("POST", "/webhooks", json={"url": hears.url, "events": {}, "sources": {}}).status_code == 400
    assert account.dialect.subscriptions() == []


def test_a_name_that_is_nobodys_stands_for_nobody(account: Account) -> None:
    member = account.someone("archived")[0]

    assert account.run(lambda source, api: source.adapter.named(api, "contact", ["0" * 32, member["id"]])) == [
        None,
        member["contact_id"],
    ]


def test_many_names_are_told_by_one_list_but_for_those_who_are_archived(account: Account) -> None:
    rows = [*account.someone()[:20], account.someone("archived")[0]]

    names = [row["id"] for row in rows]
    assert account.run(lambda source, api: source.adapter.named(api, "contact", names)) == [row["contact_id"] for row in rows]
    assert (account.dialect.calls[MEMBERS], account.dialect.calls[f"{MEMBERS}/{{who}}"]) == (1, 1)


# ---- the feed ----


def test_edits_archived_and_returned_members_are_told(account: Account) -> None:
    follower = account.follower()
    one, gone, back, *_ = account.someone()
    account.dialect.change("contact", one["contact_id"], {"merge_fields": {"FNAME": "Ada"}})
    account.dialect.delete("contact", gone["contact_id"])
    account.dialect.delete("contact", back["contact_id"])
    account.dialect.change("contact", back["contact_id"], {"status": "subscribed"})
    [made] = account.write("contact", Write(verb="create", row={"email_address": "new@somewhere.example"}))

    changes = {each.native_id: each for each in account.passed(follower)}

    assert {id: each.op for id, each in changes.items()}.items() >= {
        one["contact_id"]: "CHANGED", gone["contact_id"]: "DELETED", back["contact_id"]: "CHANGED", made.native_id: "CHANGED",
    }.items()  # fmt: skip
    assert changes[one["contact_id"]].row["merge_fields"] == {"FNAME": "Ada"}  # type: ignore[index]
    assert account.dialect.calls[MEMBERS] == 2


def test_members_archived_before_the_feed_began_are_not_told(account: Account) -> None:
    account.dialect.delete("contact", account.someone()[0]["contact_id"])
    account.sandbox.clock.advance(600)
    account.dialect.change("contact", account.someone()[0]["contact_id"], {"merge_fields": {"FNAME": "Ada"}})

    assert {each.op for each in account.passed(account.follower())} == {"CHANGED"}


def test_a_feed_of_an_audience_where_all_are_archived_begins_with_who_comes_next(account: Account) -> None:
    for row in list(account.dialect.tables["contact"]):
        account.dialect.change("contact", row["contact_id"], {"status": "archived"})
    account.sandbox.clock.advance(600)
    follower = Follower("contact", FIELDS)
    account.passed(follower)
    back = next(iter(account.dialect.tables["contact"]))["contact_id"]
    account.dialect.change("contact", back, {"status": "subscribed"})

    assert [each.op for each in account.passed(follower) if each.native_id == back] == ["CHANGED"]


def test_many_archived_at_once_are_told_page_by_page_with_ties(account: Account) -> None:
    follower = account.follower()
    table = account.dialect.tables["contact"]
    model = account.someone()[0]
    now = f"{account.sandbox.clock.now():%Y-%m-%dT%H:%M:%S+00:00}"
    gone = {f"{number:032x}" for number in range(1400)}
    for id in gone:
        table.put(id, {**model, "contact_id": id, "id": id, "status": "archived", "last_changed": now})

    told = account.passed(follower)

    assert gone <= {each.native_id for each in told if each.op == "DELETED"}
    assert account.dialect.calls[MEMBERS] <= 5


def test_an_archiving_that_is_committed_late_is_told(account: Account) -> None:
    follower = account.follower()
    early, late, *_ = account.someone()
    account.dialect.delete("contact", early["contact_id"])
    account.passed(follower)
    with account.sandbox.clock.behind(100):  # the clock goes on by a minute between two runs
        account.dialect.delete("contact", late["contact_id"])

    assert late["contact_id"] in ids(account.passed(follower))


def test_marketing_events_have_no_feed(account: Account) -> None:
    with pytest.raises(UnsupportedError):
        account.run(lambda source, api: source.adapter.changes(api, "marketing_event", None, (), now=SENT))

"""zenpy, unmodified, against the sandbox: it reads and writes, one record and many; the environment tells it where the account is."""

import time
from collections.abc import Iterator

import pytest
import requests
from zenpy import Zenpy
from zenpy.lib.api_objects import Comment, Organization, Ticket, User
from zenpy.lib.exception import APIException, RatelimitBudgetExceeded, RecordNotFoundException

from sandbox.app import Sandbox, server
from sandbox.faults import Fault
from sandbox.zendesk import AGENT, API_TOKEN
from tests.world import served

ADA = "ada.king@northwind.example"
Account = tuple[Zenpy, Sandbox]


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    sandbox = Sandbox(people=300, systems=("zendesk",))
    with served(server(sandbox)) as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZENPY_FORCE_SCHEME", "http")
        patch.setenv("ZENPY_FORCE_NETLOC", f"{address.removeprefix('http://')}/zendesk")
        yield connected(email=AGENT, token=API_TOKEN), sandbox


def connected(**auth: str) -> Zenpy:
    session = requests.Session()
    session.trust_env = False
    return Zenpy(subdomain="c360-demo", session=session, disable_cache=True, ratelimit_budget=2, **auth)


def live(sandbox: Sandbox) -> set[int]:
    return {row["id"] for row in sandbox.dialects["zendesk"].tables["contact"] if row["active"]}


def test_it_lists_everyone_page_by_page_and_shows_one(account: Account) -> None:
    client, sandbox = account

    found = {each.id for each in client.users()}

    assert found == live(sandbox)
    assert len(found) > 100
    assert client.users(id=next(iter(found))).id in found


def test_it_shows_many_and_leaves_out_what_is_not_there(account: Account) -> None:
    client, sandbox = account
    some = sorted(live(sandbox))[:3]

    assert sorted(each.id for each in client.users(ids=[*some, 7])) == some


def test_it_searches_and_pages_through_the_results(account: Account) -> None:
    client, _ = account

    [ada] = client.users.search(f"email:{ADA}")
    tickets = [each.id for each in client.search(type="ticket", sort_by="created_at", sort_order="asc")]

    assert ada.email == ADA
    assert len(tickets) == len(set(tickets)) > 100
    assert {each.id for each in client.users.requested(ada.id)} <= set(tickets)


def test_it_reads_with_an_oauth_token_and_is_told_of_one_that_is_none(account: Account) -> None:
    _, sandbox = account
    tokens = sandbox.dialects["zendesk"].tokens
    assert tokens is not None

    assert connected(oauth_token=tokens.issue("test")).users.me().role == "agent"
    with pytest.raises(APIException, match="invalid_token"):
        connected(oauth_token="dead").users.me()


def test_it_writes_a_user_and_is_told_of_an_address_that_is_taken(account: Account) -> None:
    client, _ = account

    made = client.users.create(User(name="New Person", email="new@people.example"))
    made.phone = "+12125550123"
    changed = client.users.update(made)
    with pytest.raises(APIException, match="already being used by another user"):
        client.users.create(User(name="Second", email="NEW@people.example"))
    same = client.users.create_or_update(User(name="Renamed", email="new@people.example"))
    client.users.delete(made)

    assert (changed.phone, same.id, same.name) == ("+12125550123", made.id, "Renamed")
    assert client.users(id=made.id).active is False


def test_it_merges_users(account: Account) -> None:
    client, _ = account
    loser, winner = (client.users.create(User(name=name, email=f"{name}@people.example")) for name in ("loser", "winner"))
    ticket = client.tickets.create(Ticket(subject="Mine", comment=Comment(body="Mine"), requester_id=loser.id)).ticket

    client.users.merge(loser, winner)

    assert client.tickets(id=ticket.id).requester_id == winner.id
    assert client.users(id=loser.id).active is False
    assert {each.value for each in client.users.identities(id=winner.id)} == {"loser@people.example", "winner@people.example"}


def test_it_writes_an_organization_and_puts_a_user_into_it(account: Account) -> None:
    client, _ = account

    made = client.organizations.create(Organization(name="Brand New", domain_names=["brandnew.example"]))
    user = client.users.create(User(name="Member", email="member@brandnew.example", organization_id=made.id))
    with pytest.raises(APIException, match="has already been taken"):
        client.organizations.create(Organization(name="brand new"))
    members = [each.id for each in client.organizations.users(made)]
    client.organizations.delete(made)

    assert members == [user.id]
    assert client.users(id=user.id).organization_id is None
    with pytest.raises(RecordNotFoundException):
        client.organizations(id=made.id)


def test_it_opens_changes_and_deletes_a_ticket(account: Account) -> None:
    client, sandbox = account

    audit = client.tickets.create(
        Ticket(
            subject="It smokes", comment=Comment(body="My printer."), requester=User(name="Asker", email="asker@people.example")
        )
    )
    ticket = client.tickets(id=audit.ticket.id)
    sandbox.dialects["zendesk"].clock.advance(2)
    ticket.status = "solved"
    solved = client.tickets.update(ticket)
    client.tickets.delete(solved.ticket)

    assert (ticket.description, ticket.requester.email) == ("My printer.", "asker@people.example")
    assert solved.ticket.status == "solved"
    with pytest.raises(RecordNotFoundException):
        client.tickets(id=ticket.id)


def test_a_closed_ticket_stays_as_it_is(account: Account) -> None:
    client, _ = account
    audit = client.tickets.create(Ticket(subject="Done", comment=Comment(body="Done.")))
    client.tickets.update(Ticket(id=audit.ticket.id, status="closed"))

    with pytest.raises(APIException, match="closed prevents ticket update"):
        client.tickets.update(Ticket(id=audit.ticket.id, subject="Again"))


def test_many_are_written_by_jobs_with_a_result_each(account: Account) -> None:
    client, sandbox = account
    people = [User(name=f"Many {n}", email=f"many{n}@people.example") for n in range(3)]

    queued = client.users.create([*people, User(name="Twin", email=ADA)])
    sandbox.clock.advance(2)
    created = client.job_status(id=queued.id)
    ids = [each.id for each in created.results if each.success]
    updated = client.users.update([User(id=id, phone="+12125550124") for id in ids])
    again = client.users.create_or_update([User(name="Many again", email="many0@people.example")])
    gone = client.users.delete([User(id=id) for id in ids])
    sandbox.clock.advance(2)

    assert (queued.status, queued.results, created.status, created.total) == ("queued", None, "completed", 4)
    assert [each.success for each in created.results] == [True, True, True, False]
    assert "already being used" in created.results[3].details
    assert [each.status for each in client.job_status(id=updated.id).results] == ["Updated"] * 3
    assert [each.id for each in client.job_status(id=again.id).results] == ids[:1]
    assert [each.status for each in client.job_status(id=gone.id).results] == ["Deleted"] * 3
    assert not live(sandbox) & set(ids)


def test_it_waits_as_long_as_a_throttled_answer_says(account: Account) -> None:
    client, sandbox = account
    sandbox.faults.add(Fault(system="zendesk", fault="throttle", seconds=1, times=1))
    began = time.monotonic()

    client.users.me()
    waited = time.monotonic() - began
    number = sandbox.faults.add(Fault(system="zendesk", fault="throttle", seconds=30))
    with pytest.raises(RatelimitBudgetExceeded):
        client.users.me()
    sandbox.faults.remove(number)

    assert waited >= 1

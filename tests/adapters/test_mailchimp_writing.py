"""What is unusual about writing to Mailchimp: consent that nobody may give for others, archived members, batches row by row."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from adapters.base import Outcome
from model.records import Contact
from sandbox.faults import Fault
from sandbox.mailchimp import AUDIENCE
from sources.source import Source
from sources.writing import RecordWrite
from tests.adapters.mailchimp_account import KEY, Account, opened, read, reading, written


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with opened() as running:
        yield running


def create(email: str, **custom: Any) -> RecordWrite:
    return RecordWrite(verb="create", values={"email": email, "given_name": "Grace", "family_name": "Hopper"}, custom=custom)


def test_whoever_is_new_is_sent_no_campaigns_unless_it_is_said(account: Account) -> None:
    async def work(source: Source) -> list[str]:
        one, two = (
            (await written(source, create("quiet@new.example")))[0],
            (await written(source, create("loud@new.example", status="Subscribed")))[0],
        )
        return [str(one.native_id), str(two.native_id)]

    quiet, loud = account.run(work)
    [pending] = account.run(lambda source: written(source, create("asked@new.example")), status_if_new="pending")

    members = account.dialect.tables["contact"]
    assert [members.get(str(id))["status"] for id in (quiet, loud, pending.native_id)] == [
        "transactional",
        "subscribed",
        "pending",
    ]  # type: ignore[index]


def test_an_upsert_leaves_the_consent_of_those_who_are_there_alone(account: Account) -> None:
    found = {status: account.someone(status) for status in ("subscribed", "unsubscribed", "cleaned")}

    async def work(source: Source) -> list[Outcome]:
        said = [{"email": row["email_address"].upper(), "family_name": "Upserted"} for row in found.values()]
        return await written(source, *(RecordWrite(verb="upsert", match="email", values=values) for values in said))

    outcomes = account.run(work)

    assert [each.native_id for each in outcomes] == [row["contact_id"] for row in found.values()]
    for status, row in found.items():
        now = account.dialect.tables["contact"].get(row["contact_id"])
        assert now is not None
        assert (now["status"], now["merge_fields"]["LNAME"]) == (status, "Upserted")


@pytest.mark.parametrize("verb", ["create", "upsert"])
def test_an_archived_member_comes_back_under_its_id(account: Account, verb: Any) -> None:
    async def work(source: Source) -> tuple[str | None, Outcome, Contact | None]:
        email = f"back.{verb}@new.example"
        [first] = await written(source, create(email))
        await written(source, RecordWrite(verb="delete", native_id=first.native_id))
        match = "email" if verb == "upsert" else None
        [again] = await written(source, RecordWrite(verb=verb, match=match, values={"email": email, "given_name": "Again"}))  # type: ignore[arg-type]
        return first.native_id, again, await read(source, again.native_id or "")

    id, again, record = account.run(work)

    assert (again.state, again.native_id, again.created) == ("APPLIED", id, True)
    assert record is not None
    assert record.given_name == "Again"


def test_what_may_not_be_done_to_someone_is_told_by_the_vendors_title(account: Account) -> None:
    gone, bounced = account.someone("archived"), account.someone("cleaned")

    async def work(source: Source) -> list[Outcome]:
        [forgotten] = await written(source, create("forgotten@new.example"))
        httpx.post(
            f"{account.address}/mailchimp/3.0/lists/{AUDIENCE}/members/{forgotten.native_id}/actions/delete-permanent",
            headers=KEY,
        )
        return await written(
            source,
            RecordWrite(verb="update", native_id=bounced["contact_id"], custom={"status": "subscribed"}),
            RecordWrite(verb="delete", native_id=bounced["contact_id"]),
            RecordWrite(verb="delete", native_id=gone["contact_id"]),
            RecordWrite(verb="update", native_id=gone["contact_id"], values={"given_name": "Nobody"}),
            create("forgotten@new.example"),
        )

    outcomes = account.run(work)

    assert [(each.state, each.error.upstream_code if each.error else None) for each in outcomes] == [
        ("REJECTED", "Member In Compliance State"), ("REJECTED", "Method Not Allowed"), ("UNCHANGED", None), ("REJECTED", None),
        ("REJECTED", "Forgotten Email Not Subscribed"),
    ]  # fmt: skip
    assert [each.error.code for each in outcomes if each.error] == ["VALIDATION", "VALIDATION", "NOT_FOUND", "VALIDATION"]


def test_many_creates_are_two_calls_and_one_row_spoils_no_other(account: Account) -> None:
    taken = account.someone()["email_address"]
    account.dialect.calls.clear()

    async def work(source: Source) -> tuple[list[Outcome], list[Contact | None]]:
        await source.described("contact", reading())
        account.dialect.calls.clear()
        outcomes = await written(
            source, create("one@batch.example"), create("two@batch.example", Seats="many"), create(taken), create("not an address"),
            create("five@batch.example", **{"Membership tier": "pro", "Seats": 7, "Customer since": None}),
        )  # fmt: skip
        calls.update(account.dialect.calls)
        return outcomes, [await read(source, each.native_id) for each in outcomes if each.native_id]

    calls: dict[str, int] = {}
    outcomes, records = account.run(work)

    assert [each.state for each in outcomes] == ["APPLIED", "REJECTED", "CONFLICT", "REJECTED", "APPLIED"]
    assert [list(each.fields) for each in outcomes] == [[], ["merge_fields.SEATS"], [], ["email"], []]
    assert all("example" not in each.error.message for each in outcomes if each.error)
    assert [each and each.email for each in records] == ["one@batch.example", "five@batch.example"]
    assert records[1] is not None
    assert {tag: records[1].row["merge_fields"][tag] for tag in ("MMERGE7", "SEATS", "SINCE")} == {
        "MMERGE7": "Pro",
        "SEATS": 7,
        "SINCE": "",
    }
    assert calls == {
        "POST /3.0/lists/{list}": 1, "GET /3.0/lists/{list}/members": 1,
        "GET /3.0/lists/{list}/members/{who}": 1,  # whether the address that is taken is an archived member's
    }  # fmt: skip


def test_a_batch_whose_ids_cannot_be_asked_for_is_written_all_the_same(account: Account) -> None:
    async def work(source: Source) -> list[Outcome]:
        await source.described("contact", reading())
        account.sandbox.faults.add(Fault(system="mailchimp", fault="status", path="GET */members", status=400, times=1))
        return await written(source, create("nameless1@new.example"), create("nameless2@new.example"))

    outcomes = account.run(work)

    assert [(each.state, each.native_id, each.created) for each in outcomes] == [("APPLIED", None, True)] * 2


def test_an_address_changes_and_a_field_is_cleared(account: Account) -> None:
    async def work(source: Source) -> tuple[list[Outcome], Contact | None]:
        [made] = await written(source, create("before@new.example"))
        changed = {"email": "after@new.example", "given_name": None}
        outcomes = await written(source, RecordWrite(verb="update", native_id=made.native_id, values=changed))
        taken = RecordWrite(verb="update", native_id=made.native_id, values={"email": account.someone()["email_address"]})
        return [made, *outcomes, *await written(source, taken)], await read(source, made.native_id or "")

    (made, changed, taken), record = account.run(work)

    assert record is not None
    assert (changed.state, changed.native_id, taken.state) == ("APPLIED", made.native_id, "CONFLICT")
    assert (record.email, record.given_name, record.family_name) == ("after@new.example", None, "Hopper")


def test_a_late_answer_to_a_batch_of_creates_is_unknown_and_to_an_update_is_asked_again(account: Account) -> None:
    member = account.someone()["contact_id"]

    async def work(source: Source) -> tuple[list[Outcome], list[Outcome]]:
        await source.described("contact", reading())
        account.sandbox.faults.add(Fault(system="mailchimp", fault="truncate", times=1))
        lost = await written(source, create("lost1@new.example"), create("lost2@new.example"))
        account.sandbox.faults.add(Fault(system="mailchimp", fault="truncate", times=1))
        return lost, await written(source, RecordWrite(verb="update", native_id=member, values={"given_name": "Twice"}))

    lost, updated = account.run(work)

    assert [each.state for each in lost] == ["UNKNOWN", "UNKNOWN"]
    assert [each.state for each in updated] == ["APPLIED"]

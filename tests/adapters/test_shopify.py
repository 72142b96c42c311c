"""What is unusual about Shopify: writes as mutations in one document, refused by field and words inside a 200."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from graphql import build_schema, parse, validate

from adapters.base import Outcome, Response, Scan, Write
from adapters.shopify_queries import metafield_alias
from adapters.shopify_writing import Document
from model.errors import UnsupportedError
from sandbox.shopify import Shopify
from sources.source import Source
from sources.writing import RecordWrite
from tests.adapters.noted import Noted, Sent, System, reading, system
from tests.specifications import specification

GRAPHQL = "POST /admin/api/{version}/graphql.json"
POINTS, SINCE = metafield_alias("custom", "points"), metafield_alias("custom", "vip-since")


@pytest.fixture
def shop() -> Iterator[System]:
    with system("shopify") as running:
        yield running


def named(n: int, **more: Any) -> dict[str, Any]:
    return {"email": f"new{n}@people.example", "firstName": "New", **more}


def states(outcomes: list[Outcome]) -> list[str]:
    return [each.state for each in outcomes]


# ---- documents of mutations ----


def test_forty_five_creates_are_three_documents_and_keep_their_order(shop: System) -> None:
    outcomes = shop.write("contact", *(Write(verb="create", row=named(n)) for n in range(45)))

    emails = [(shop.row("contact", each.native_id) or {})["defaultEmailAddress"]["emailAddress"] for each in outcomes]
    assert emails == [f"new{n}@people.example" for n in range(45)]
    assert all(each.created for each in outcomes)
    assert shop.dialect.calls[GRAPHQL] == 3


def test_one_refusal_of_a_document_leaves_the_others_written(shop: System) -> None:
    taken = next(row for row in shop.dialect.tables["contact"] if row["defaultEmailAddress"])

    outcomes = shop.write(
        "contact", Write(verb="create", row=named(1)),
        Write(verb="create", row={"email": taken["defaultEmailAddress"]["emailAddress"].upper()}),
        Write(verb="create", row=named(2, phone="12")), Write(verb="create", row=named(3)),
    )  # fmt: skip

    assert states(outcomes) == ["APPLIED", "CONFLICT", "REJECTED", "APPLIED"]
    assert [tuple(each.fields) for each in outcomes] == [(), ("email",), ("phone",), ()]
    assert shop.dialect.calls[GRAPHQL] == 1


def test_what_may_be_sent_again_goes_apart_from_creates(shop: System) -> None:
    [id] = [each.native_id for each in shop.write("contact", Write(verb="create", row=named(1)))]
    shop.broken("reset", times=1)

    create, update = shop.write(
        "contact", Write(verb="create", row=named(2)), Write(verb="update", native_id=id, row={"lastName": "Newer"})
    )

    # The line broke on the first document, that of the update: it was sent again.
    assert (create.state, update.state) == ("APPLIED", "APPLIED")
    assert (shop.row("contact", id) or {})["lastName"] == "Newer"
    assert shop.dialect.calls[GRAPHQL] == 3


def test_a_document_whose_answer_is_lost_is_unknown_for_each_of_its_creates(shop: System) -> None:
    shop.broken("truncate", path=GRAPHQL.replace("{version}", "*"))

    outcomes = shop.write("contact", *(Write(verb="create", row=named(n)) for n in range(3)), seconds=3)

    assert states(outcomes) == ["UNKNOWN"] * 3
    assert shop.dialect.calls[GRAPHQL] == 1


def test_errors_of_single_mutations_are_theirs_alone(shop: System) -> None:
    writes = [Write(verb="create", row=named(n)) for n in range(3)]
    body = {
        "data": {"write_0": {"customer": {"id": "gid://shopify/Customer/7"}, "userErrors": []}, "write_1": None, "write_2": None},
        "errors": [
            {"message": "no", "path": ["write_1"], "extensions": {"code": "ACCESS_DENIED"}},
            {"message": "oops", "path": ["write_2"], "extensions": {"code": "INTERNAL_SERVER_ERROR"}},
        ],
    }

    outcomes = Document(writes, [None] * 3).outcomes(body)
    fault = shop.run(lambda source, api: _classified(source, body))

    assert fault is None
    assert states(outcomes) == ["APPLIED", "REJECTED", "UNKNOWN"]
    assert [each.error and each.error.code for each in outcomes] == [None, "FORBIDDEN", "UPSTREAM"]


async def _classified(source: Source, body: Any) -> Any:
    return source.adapter.classify(Response(status=200, headers={}, body=orjson.dumps(body)))


# ---- upserts, deletes, metafields ----


def test_an_upsert_is_one_call_and_changes_only_what_is_said(shop: System) -> None:
    [first] = shop.write("contact", Write(verb="upsert", match="email", row=named(1, lastName="Person", phone="+12125550199")))
    [second] = shop.write(
        "contact", Write(verb="upsert", match="email", row={"email": "NEW1@people.example", "lastName": "Renamed"})
    )

    row = shop.row("contact", first.native_id) or {}
    assert (first.state, second.state, first.native_id) == ("APPLIED", "APPLIED", second.native_id)
    assert (row["firstName"], row["lastName"], row["defaultPhoneNumber"]) == ("New", "Renamed", {"phoneNumber": "+12125550199"})
    assert shop.dialect.calls[GRAPHQL] == 1


def test_an_upsert_with_metafields_is_resolved_first_for_customer_set_takes_none(shop: System) -> None:
    row = {**named(1), POINTS: {"value": 12}}

    [first] = shop.write("contact", Write(verb="upsert", match="email", row=row))
    [second] = shop.write("contact", Write(verb="upsert", match="email", row={**row, POINTS: {"value": 13}}))

    assert (first.created, second.created, first.native_id) == (True, False, second.native_id)
    assert shop.dialect.calls[GRAPHQL] == 2
    assert _metafield(shop, first.native_id, "points") == {"type": "number_integer", "value": "13"}


def test_a_create_beside_an_upsert_of_the_same_address_is_a_create(shop: System) -> None:
    [made] = shop.write("contact", Write(verb="create", row=named(1)))
    row = {**named(1), POINTS: {"value": 12}}

    twin, same = shop.write("contact", Write(verb="create", row=row), Write(verb="upsert", match="email", row=row))

    assert (twin.state, same.state, same.native_id) == ("CONFLICT", "APPLIED", made.native_id)


def test_a_metafield_is_written_by_its_label_and_emptied_by_its_own_mutation(shop: System) -> None:
    async def work(source: Source, _: Noted) -> list[Outcome]:
        values = {"email": "vip@people.example"}
        [made] = await source.write("contact", [RecordWrite(verb="create", values=values, custom={"custom.points": 5, "custom.vip-since": "2026-01-31"})], reading())  # fmt: skip
        changes = {"custom.points": 6, "custom.vip-since": None}
        [changed] = await source.write(
            "contact", [RecordWrite(verb="update", native_id=made.native_id, custom=changes)], reading()
        )
        wrong = RecordWrite(verb="update", native_id=made.native_id, custom={"custom.vip-since": "yesterday"})
        return [made, changed, *await source.write("contact", [wrong], reading())]

    made, changed, wrong = shop.run(work)

    assert states([made, changed, wrong]) == ["APPLIED", "APPLIED", "REJECTED"]
    assert _metafield(shop, made.native_id, "points") == {"type": "number_integer", "value": "6"}
    assert _metafield(shop, made.native_id, "vip-since") is None
    assert list(wrong.fields) == [f"{SINCE}.value"]


def test_a_customer_with_orders_stays_and_one_that_is_gone_changes_nothing(shop: System) -> None:
    order = next(iter(shop.dialect.tables["order"]))
    merged = next(each for each in shop.sandbox.world.profiles["shopify"] if each.deleted)

    kept, gone, updated = shop.write(
        "contact", Write(verb="delete", native_id=order["customerId"]), Write(verb="delete", native_id=str(merged.id)),
        Write(verb="update", native_id=str(merged.id), row={"lastName": "Back"}),
    )  # fmt: skip

    assert (kept.state, gone.state) == ("REJECTED", "UNCHANGED")
    assert shop.row("contact", order["customerId"]) is not None
    assert updated.error is not None
    assert updated.error.code == "NOT_FOUND"


def test_orders_are_not_written(shop: System) -> None:
    with pytest.raises(UnsupportedError):
        shop.write("order", Write(verb="update", native_id="1"))


def test_a_customer_without_a_name_number_or_address_is_refused(shop: System) -> None:
    [made] = shop.write("contact", Write(verb="create", row={"email": "only@people.example"}))

    [emptied] = shop.write("contact", Write(verb="update", native_id=made.native_id, row={"email": None}))

    assert emptied.state == "REJECTED"
    assert (shop.row("contact", made.native_id) or {})["defaultEmailAddress"] == {
        "emailAddress": "only@people.example",
        "marketingState": "NOT_SUBSCRIBED",
    }


def test_a_mutation_costs_ten_points_and_is_reserved_as_such(shop: System) -> None:
    writes = [Write(verb="create", row=named(n)) for n in range(7)]

    async def work(source: Source, api: Noted) -> Sent:
        await source.adapter.write(api, "contact", writes)
        return api.sent

    [(request, answer)] = shop.run(work)

    assert request.cost == {"points": 70}
    assert answer.json()["extensions"]["cost"]["requestedQueryCost"] == 70


# ---- the published schema ----


LACKS = ("metafieldDefinitions", "customerDelete", "metafieldsDelete", "CustomerDeleteInput", "MetafieldIdentifierInput")


def test_every_document_that_is_sent_fits_the_published_schema(shop: System) -> None:
    published = build_schema(specification("shopify", "admin-2026-07.subset.graphql").read_text(), assume_valid=True)
    ids = [row["legacyResourceId"] for row in shop.dialect.tables["contact"]][:5]

    async def work(source: Source, api: Noted) -> Sent:
        adapter = source.adapter
        await adapter.check(api)
        for kind in ("contact", "order"):
            mapped = list(source._mappings[kind].paths(tuple(adapter.kinds[kind].mapping)))
            await adapter.read(api, kind, ids, [*mapped, *([f"{POINTS}.value"] if kind == "contact" else [])])
            await adapter.scan(api, kind, Scan(order="updated", size=5, fields=mapped))
        await adapter.related(api, "order", "contact", ids, ["createdAt"], 5)
        await adapter.find(api, "contact", "email", ["ada.king@northwind.example"], ["displayName"])
        row = {**named(1), POINTS: {"value": "1"}}
        await adapter.write(api, "contact", [Write(verb="create", row=row), Write(verb="upsert", match="email", row=row)])
        await adapter.write(api, "contact", [Write(verb="upsert", match="email", row=named(2)), Write(verb="update", native_id=ids[0], row={"lastName": "X"})])  # fmt: skip
        return api.sent

    sent = shop.run(work)

    wrong = [error.message for request, _ in sent for error in validate(published, parse(request.json["query"]))]  # type: ignore[index]
    assert len(sent) >= 10
    assert wrong == []


def test_what_the_published_cut_lacks_is_named(shop: System) -> None:
    """customerDelete and metafieldsDelete come from shopify.dev: were they in the cut, they would have to fit it."""
    published = build_schema(specification("shopify", "admin-2026-07.subset.graphql").read_text(), assume_valid=True)
    emptied = {SINCE: {"value": None}}

    async def work(source: Source, api: Noted) -> Sent:
        await source.adapter.describe(api, "contact")
        [made] = await source.adapter.write(api, "contact", [Write(verb="create", row=named(9))])
        await source.adapter.write(api, "contact", [Write(verb="update", native_id=made.native_id, row=emptied)])
        await source.adapter.write(api, "contact", [Write(verb="delete", native_id=made.native_id)])
        return api.sent

    sent = shop.run(work)

    told = [error.message for request, _ in sent for error in validate(published, parse(request.json["query"]))]  # type: ignore[index]
    assert len(told) >= 3
    assert all(any(word in message for word in LACKS) for message in told)


def _metafield(shop: System, id: str | None, key: str) -> dict[str, Any] | None:
    assert isinstance(shop.dialect, Shopify)
    row = shop.row("contact", id)
    assert row is not None
    found = row["metafield"](None, key=key)
    return found and {name: found[name] for name in ("type", "value")}

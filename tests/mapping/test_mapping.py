"""A mapping document becomes a function that maps rows exactly, and says which field does not fit."""

import contextlib
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mapping.compile import Compiled, compile_mapping
from mapping.convert import converter
from mapping.paths import pick, steps
from mapping.spec import Document
from model.errors import MappingError
from model.money import Money, decimal_of, of_amount
from model.records import Kind, ObjectType, Stage

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NAMES = st.text("abcdefgh_-0123456789é ", min_size=1, max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda below: st.lists(below) | st.dictionaries(NAMES, below), max_leaves=12
)  # fmt: skip


def compiled(fields: dict[str, Any], kind: Kind = "contact", **more: Any) -> Compiled:
    facts = {
        "source": "a",
        "system": "test",
        "native_object": "people",
        "region": "DE",
        "currency": "EUR",
        "url": lambda kind, id: None,
    }
    return compile_mapping(Document.model_validate({"fields": {"native_id": "id", **fields}}), kind, **{**facts, **more})  # type: ignore[arg-type]


def mapped(fields: dict[str, Any], row: dict[str, Any], kind: Kind = "contact", meta: ObjectType | None = None) -> Any:
    return compiled(fields, kind).record({"id": "1", **row}, meta, NOW)


# ---- rules ----


def test_a_path_walks_down_and_finds_nothing_where_a_step_is_missing() -> None:
    rule = {"title": "a.b.c"}

    assert mapped(rule, {"a": {"b": {"c": "x"}}}).title == "x"
    for row in ({}, {"a": None}, {"a": {"b": []}}, {"a": "text"}, {"a": {"b": {"c": None}}}):
        assert mapped(rule, row).title is None


def test_a_selector_picks_from_a_list_of_keyed_entries() -> None:
    row = {"fields": [{"id": 1, "value": "one"}, {"id": 2, "value": "two"}, "stray"]}

    assert mapped({"title": "fields[id=2].value"}, row).title == "two"
    assert mapped({"title": "fields[id=3].value"}, row).title is None


def test_several_paths_are_handed_over_without_nulls() -> None:
    rule = {"emails": {"paths": ["mail", "more"], "convert": ["split:;", "emails"]}}

    assert mapped(rule, {"mail": "A@x.example", "more": "b@x.example; a@X.example"}).emails == ("a@x.example", "b@x.example")
    assert mapped(rule, {"mail": None}).emails == ()


def test_values_translate_and_the_rest_becomes_the_default() -> None:
    rule = {"title": {"path": "t", "values": {"1": "one"}, "default": "other"}}

    assert [mapped(rule, {"t": each}).title for each in ("1", "2", None)] == ["one", "other", "other"]


def test_the_first_case_that_holds_wins() -> None:
    rule = {"title": {"cases": [{"when": {"path": "gone"}, "value": "gone"}, {"when": {"path": "s", "any_of": ["a", "b"]}, "value": "ab"}], "default": "-"}}  # fmt: skip

    assert [mapped(rule, row).title for row in ({"gone": "2026", "s": "a"}, {"gone": "", "s": "b"}, {"s": "c"})] == [
        "gone",
        "ab",
        "-",
    ]


def test_money_takes_its_currency_from_the_row_then_the_object_then_the_source() -> None:
    rule = {"stage": {"path": "s", "convert": "stage"}, "amount": {"money": {"amount": "sum", "currency": "cur"}}}
    object_type = ObjectType(name="deals", fields={}, currency="GBP")

    def amount(row: dict[str, Any], meta: ObjectType | None) -> Any:
        return mapped(rule, {"s": "x", **row}, "deal", meta).amount

    assert amount({"sum": "10.50", "cur": "usd"}, object_type) == Money(Decimal("10.50"), "USD")
    assert amount({"sum": 10.5}, object_type) == Money(Decimal("10.5"), "GBP")
    assert amount({"sum": 3}, None) == Money(Decimal(3), "EUR")
    assert amount({"sum": ""}, None) is None


def test_a_stage_comes_from_metadata_and_a_removed_one_counts_as_open() -> None:
    won = Stage(id="w", name="Closed won", category="WON", pipeline=None, native="w")
    meta = ObjectType(name="deals", fields={}, stages={"w": won})
    rule = {"stage": {"path": "s", "convert": "stage"}}

    assert mapped(rule, {"s": "w"}, "deal", meta).stage == won
    assert mapped(rule, {"s": "gone"}, "deal", meta).stage.category == "OPEN"


def test_lists_become_items() -> None:
    rule = {
        "status": {"value": "OPEN"}, "raw_status": {"value": ""}, "placed_at": {"path": "at", "convert": "datetime"}, "total": {"money": {"amount": "sum"}},
        "items": {"over": "lines.nodes", "each": {"title": "t", "quantity": {"path": "n", "convert": "integer", "default": 0}, "sku": "k", "price": {"money": {"amount": "p"}}}},
    }  # fmt: skip
    row = {"at": "2026-01-01T00:00:00Z", "sum": "1", "lines": {"nodes": [{"t": "Lamp", "n": "2"}, {"t": "Desk"}]}}

    items = mapped(rule, row, "order").items

    assert [(item.title, item.quantity, item.sku) for item in items] == [("Lamp", 2, None), ("Desk", 0, None)]
    assert mapped(rule, {**row, "lines": None}, "order").items == ()


# ---- what does not fit ----


def test_a_value_that_does_not_fit_names_its_field_and_not_the_value() -> None:
    with pytest.raises(MappingError) as refused:
        mapped({"title": "t", "created_at": {"path": "at", "convert": "datetime"}}, {"at": "ada@x.example"})

    assert refused.value.field == "created_at"
    assert "ada" not in str(refused.value)


def test_the_place_of_a_bad_row_is_still_known() -> None:
    rules = {"created_at": {"path": "at", "convert": "datetime"}, "score": {"path": "n", "convert": "number"}}
    made = compiled({"created_at": rules["created_at"], "account_id": {"path": "n", "convert": "number"}})
    row = {"id": "7", "at": "2026-01-02T03:04:05Z", "n": "not a number"}

    with pytest.raises(MappingError):
        made.record(row, None, NOW)

    assert made.place(row) == ("7", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None)


@given(row=st.dictionaries(st.sampled_from(["id", "a", "b", "at", "n"]), VALUES))
def test_any_row_is_a_record_or_a_mapping_error(row: dict[str, Any]) -> None:
    made = compiled({
        "title": {"path": "a.b", "convert": "text"}, "emails": {"paths": ["a", "b"], "convert": ["split:;", "emails"]},
        "created_at": {"path": "at", "convert": "datetime"}, "phone": {"path": "n", "convert": "phone"},
    })  # fmt: skip

    with contextlib.suppress(MappingError):
        made.record(row, None, NOW)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"title": {"path": "a", "convert": "nonsense"}}, "no converter 'nonsense'"),
        ({"title": {"path": "a", "value": 1}}, "exactly one"),
        ({"title": {}}, "exactly one"),
        ({"title": {"path": "a..b"}}, "not a path"),
        ({"title": {"path": "a[b]"}}, "not a path"),
        ({"title": {"path": "a", "typo": 1}}, "typo"),
        ({"items": {"each": {"a": "b"}}}, "go together"),
    ],
)
def test_a_wrong_document_says_what_is_wrong(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Document.model_validate({"fields": fields})


def test_a_field_the_kind_does_not_have_is_refused() -> None:
    with pytest.raises(MappingError, match="no field 'shoe_size'"):
        compiled({"shoe_size": "s"})


def test_no_text_of_a_document_is_ever_code() -> None:
    path = "x'); __import__('os').abort(); ('"

    assert mapped({"title": path}, {path: "safe"}).title in {"safe", None}


def test_a_selection_needs_its_own_paths_and_the_ids_and_times() -> None:
    made = compiled({"created_at": "c", "updated_at": "u", "title": "t.x", "emails": {"paths": ["e", "f"], "convert": "emails"}})

    assert set(made.paths(["title"])) == {"id", "c", "u", "t.x"}
    assert set(made.paths(["emails"])) == {"id", "c", "u", "e", "f"}


# ---- conversions ----


@given(seconds=st.integers(86_400, 7_000_000_000), millis=st.integers(0, 999), offset=st.integers(-12, 14))
def test_every_spelling_of_a_moment_is_that_moment(seconds: int, millis: int, offset: int) -> None:
    instant = converter("datetime", region="US")
    whole = datetime.fromtimestamp(seconds, tz=UTC) + timedelta(milliseconds=millis)
    local = whole.astimezone(timezone(timedelta(hours=offset)))

    assert instant(whole.isoformat()) == whole
    assert instant(local.isoformat()) == whole
    assert instant(local.strftime("%Y-%m-%dT%H:%M:%S.%f%z")) == whole  # Salesforce: +0000
    assert instant(whole.strftime("%Y-%m-%dT%H:%M:%S.%fZ")) == whole
    assert instant(whole.replace(tzinfo=None).isoformat()) == whole
    assert abs(instant(round(whole.timestamp() * 1000)) - whole) < timedelta(milliseconds=1)


@given(amount=st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=4))
def test_amounts_stay_exact(amount: Decimal) -> None:
    assert converter("decimal", region="US")(str(amount)) == amount


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999999", "ten", "1e-999999"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        converter("decimal", region="US")(text)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("domain", "https://www.Acme.example/about?x", "acme.example"),
        ("domain", "acme.example", "acme.example"),
        ("last_segment", "gid://shopify/Customer/5", "5"),
        ("percent", "40", 0.4),
        ("integer", "3.0", 3),
        ("date", "2026-02-03T23:59:59Z", date(2026, 2, 3)),
        ("first", [None, "", ["x"]], "x"),
        ("join", ["Ada", None, " King "], "Ada King"),
        ("first_word", "Ada Lovelace King", "Ada"),
        ("rest_of_words", "Ada Lovelace King", "Lovelace King"),
        ("rest_of_words", "Ada", None),
        ("boolean", "false", False),
        ("entries:at,main", [{"at": "b"}, {"at": ""}, {"at": "a", "main": "1"}, {"main": True}], ["a", "b"]),
        ("entries:at", [{"at": 2}, {"at": 1}], [2, 1]),
        ("email", " Ada.King@Example.COM ", "ada.king@example.com"),
        ("phone", "030 901820", "+4930901820"),
    ],
)
def test_conversions(name: str, value: Any, found: Any) -> None:
    assert converter(name, region="DE")(value) == found


@given(path=st.lists(NAMES.filter(lambda name: name.strip() == name), min_size=1, max_size=4))
def test_pick_finds_what_stands_at_the_path(path: list[str]) -> None:
    row: Any = "value"
    for name in reversed(path):
        row = {name: row}

    assert pick(row, ".".join(path)) == "value"
    assert [name for name, _ in steps(".".join(path))] == path


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("36722.340000", "USD", "36722.34"),
        (5, "EUR", "5.00"),
        ("1.005", "USD", "1.005"),
        ("9" * 40, "USD", "9" * 40 + ".00"),
        ("700.0000", "JPY", "700"),
        (1.5, "KWD", "1.500"),
    ],
)
def test_money_has_its_currencys_decimals_however_a_system_pads_it(amount: Any, currency: str, shown: str) -> None:
    assert str(of_amount(decimal_of(amount), currency).amount) == shown

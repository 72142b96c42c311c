"""Shopify's mutations of customers: create, update, set (upsert by e-mail address or phone), delete, and their metafields.

Shapes from the published 2026-07 schema; customerDelete and metafieldsDelete, which the published cut lacks, from shopify.dev.
What the store objects to is told in `userErrors` within an HTTP 200, by field and words; by `code` only where the payload's type
has one (customerSet). The words are those that stores were seen to answer; no document promises them. Not known, and decided
here: that an update which changes nothing moves `updatedAt` all the same.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

from graphql import GraphQLError

from model.keys import normal_phone
from sandbox.clock import SandboxClock
from sandbox.table import Row, Table

GID = re.compile(r"gid://shopify/(?P<type>\w+)/(?P<number>\d+)")
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+")
_PLAIN = ("firstName", "lastName", "locale", "note", "tags", "taxExempt")
_NAMELESS = "A name, phone number, or email address must be present"
_VALUES: Mapping[str, tuple[str, str]] = {  # a metafield's type → what its value looks like, and what is said when it does not
    "number_integer": (r"-?\d+", "Value must be an integer."),
    "date": (r"\d{4}-\d\d-\d\d", "Value must be in YYYY-MM-DD format."),
    "boolean": (r"true|false", "Value must be true or false."),
}
Key = tuple[str, str]  # a metafield's namespace and key


class Customers:
    """
    Args:
        blank: makes the row of a customer of whom only the number is known.
        orders: the orders of a customer.
        types: the types of the metafields that the shop defines for customers.
    """

    def __init__(
        self, table: Table[Any], clock: SandboxClock, *, blank: Callable[[int], Row], orders: Callable[[int], list[Row]],
        types: Mapping[Key, str], shop: Row,
    ) -> None:  # fmt: skip
        self._table, self._clock, self._blank, self._orders, self._types, self._shop = table, clock, blank, orders, types, shop
        self._numbers = count(9_000_000_000)  # the population's are below
        # By customer: what the population has, and what was written since; None: deleted.
        self._metafields: dict[str, tuple[Callable[..., Row | None], dict[Key, Row | None]]] = {}

    def mutations(self) -> Row:
        """Return the fields of the mutation root."""
        return {
            "customerCreate": lambda _, input: self._create(input, []),
            "customerUpdate": lambda _, input: self._update(input),
            "customerSet": lambda _, input, identifier=None: self._set(input, identifier),
            "customerDelete": lambda _, input: self._delete(input["id"]),
            "metafieldsDelete": lambda _, metafields: self._delete_metafields(metafields),
        }

    def _create(self, input: Row, prefix: list[str]) -> Row:
        if "id" in input:
            return _refused([_error([*prefix, "id"], "Cannot specify ID on creation", "INVALID")])
        number = next(self._numbers)
        row = {**self._blank(number), "createdAt": self._now(), "state": "DISABLED", "verifiedEmail": False, "tags": []}
        return self._saved(str(number), row, input, prefix)

    def _update(self, input: Row) -> Row:
        number = self._number(input.get("id"))
        row = self._table.get(number) if number else None
        if number is None or row is None:
            return _refused([_error(["id"], "Customer does not exist", "NOT_FOUND")])
        return self._saved(number, row, input, [])

    def _set(self, input: Row, identifier: Mapping[str, str] | None) -> Row:
        if identifier is None and "id" in input:
            identifier = {"id": input["id"]}
        elif identifier is not None and "id" in input:
            return _refused([_error(["input"], "The id field is not allowed if identifier is provided.", "ID_NOT_ALLOWED")])
        if identifier is None:
            return self._create(input, ["input"])
        [(key, value)] = identifier.items()
        if key == "id":
            number = self._number(value)
            row = self._table.get(number) if number else None
            if number is None or row is None:
                return _refused([_error(["input"], "Resource matching the identifier was not found.", "NOT_FOUND")])
            return self._saved(number, row, {name: each for name, each in input.items() if name != "id"}, ["input"])
        said = input.get(key)
        if not said:
            words = "The input field corresponding to the identifier is required."
            return _refused([_error(["input"], words, "MISSING_FIELD_REQUIRED")])
        if _normal(key, said) != _normal(key, value):
            words = "The identifier value does not match the value of the corresponding field in the input."
            return _refused([_error(["input"], words, "INPUT_MISMATCH")])
        [*found] = self._table.having(key, [_normal(key, value)])
        return self._saved(found[0]["legacyResourceId"], found[0], input, ["input"]) if found else self._create(input, ["input"])

    def _delete(self, id: str) -> Row:
        number = self._number(id)
        problem = None
        if number is None or self._table.get(number) is None:
            problem = "Customer can't be found"
        elif self._orders(int(number)):
            problem = "Customer can’t be deleted because they have associated orders"
        else:
            self._table.remove(number)
        errors = [_error(["id"], problem, "INVALID")] if problem else []
        return {"deletedCustomerId": None if errors else id, "shop": self._shop, "userErrors": errors}

    def _delete_metafields(self, metafields: list[Row]) -> Row:
        gone: list[Row | None] = []
        for each in metafields:
            number = self._number(each["ownerId"])
            row = self._table.get(number) if number else None
            key = (each["namespace"], each["key"])
            if number is None or row is None or row["metafield"](None, key=key[1], namespace=key[0]) is None:
                gone.append(None)
                continue
            self._keep(number, row, {key: None})
            gone.append(each)
        return {"deletedMetafields": gone, "userErrors": []}

    def _saved(self, number: str, row: Row, input: Row, prefix: list[str]) -> Row:
        errors = [*self._taken(number, input, prefix), *self._misfits(input.get("metafields") or ())]
        row = {**row, **{name: input[name] for name in _PLAIN if name in input}}
        row |= {name: row[name] or None for name in ("firstName", "lastName")}
        if "email" in input:
            email = _normal("email", input["email"]) if input["email"] else None
            row["defaultEmailAddress"] = {"emailAddress": email, "marketingState": "NOT_SUBSCRIBED"} if email else None
        if "phone" in input:
            phone = _normal("phone", input["phone"]) if input["phone"] else None
            row["defaultPhoneNumber"] = {"phoneNumber": phone} if phone else None
        email, phone = (
            (row["defaultEmailAddress"] or {}).get("emailAddress"),
            (row["defaultPhoneNumber"] or {}).get("phoneNumber"),
        )
        names = [name for name in (row["firstName"], row["lastName"]) if name]
        if not errors and not (names or email or phone):
            errors = [_error(prefix or None, _NAMELESS, "INVALID")]
        if errors:
            return _refused(errors)
        row |= {"displayName": " ".join(names) or email or phone, "updatedAt": self._now(), "locale": row["locale"] or "en"}
        kept = {(each.get("namespace") or "custom", each["key"]): each for each in input.get("metafields") or ()}
        self._keep(number, row, kept)
        return {"customer": self._table.get(number), "userErrors": []}

    def _keep(self, number: str, row: Row, metafields: Mapping[Key, Row | None]) -> None:
        """Store a row, and with it what became of its metafields."""
        if metafields:
            base, known = self._metafields.get(number) or (row["metafield"], {})
            # A dict of its own for each version of the row, so that the one before keeps what it had.
            own = dict(known)
            for at, (name, said) in enumerate(metafields.items()):
                own[name] = said and {
                    "id": f"gid://shopify/Metafield/{number}{at}", "namespace": name[0], "key": name[1],
                    "type": self._types.get(name) or said["type"], "value": said["value"],
                }  # fmt: skip
            self._metafields[number] = (base, own)

            def metafield(_: Any, key: str, namespace: str = "custom") -> Row | None:
                return own[(namespace, key)] if (namespace, key) in own else base(None, key=key, namespace=namespace)

            row = {**row, "metafield": metafield}
        self._table.put(number, {**row, "updatedAt": self._now()})

    def _taken(self, number: str, input: Row, prefix: list[str]) -> list[Row]:
        errors = []
        for name, label in (("email", "Email"), ("phone", "Phone")):
            if not input.get(name):
                continue
            value = _normal(name, input[name])
            if value is None:
                errors.append(_error([*prefix, name], f"{label} is invalid", "INVALID"))
            elif any(row["legacyResourceId"] != number for row in self._table.having(name, [value])):
                errors.append(_error([*prefix, name], f"{label} has already been taken", "TAKEN"))
        return errors

    def _misfits(self, metafields: Any) -> list[Row]:
        errors = []
        for at, each in enumerate(metafields):
            type = self._types.get((each.get("namespace") or "custom", each.get("key") or "")) or each.get("type")
            shape, words = _VALUES.get(type or "", (r"(?s).*", ""))
            if not each.get("key"):
                errors.append(_error(["metafields", str(at), "key"], "Key can't be blank", "BLANK"))
            elif not type:
                errors.append(_error(["metafields", str(at), "type"], "Type can't be blank", "BLANK"))
            elif not each.get("value"):
                errors.append(_error(["metafields", str(at), "value"], "Value can't be blank", "BLANK"))
            elif re.fullmatch(shape, each["value"]) is None:
                errors.append(_error(["metafields", str(at), "value"], words, "INVALID"))
        return errors

    def _number(self, id: str | None) -> str | None:
        if id is None:
            return None
        if (parts := GID.fullmatch(id)) is None:
            raise GraphQLError(f"Invalid global id `{id}`")
        return parts["number"] if parts["type"] == "Customer" else None

    def _now(self) -> str:
        return f"{datetime.fromtimestamp(int(self._clock.time()), tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _error(field: list[str] | None, message: str, code: str) -> Row:
    return {"field": field, "message": message, "code": code}


def _refused(errors: list[Row]) -> Row:
    return {"customer": None, "userErrors": errors}


def _normal(key: str, value: str) -> str | None:
    """Return an address or number as the store keeps it, None when it is none."""
    if key == "phone":
        return normal_phone(value, "US")
    email = "".join(value.split()).lower()
    return email if _EMAIL.fullmatch(email) else None

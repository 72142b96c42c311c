"""Writes of Shopify's customers as one document of mutations, and what became of each.

Facts from the published 2026-07 schema: customerCreate, customerUpdate and customerSet; from shopify.dev: customerDelete,
metafieldsDelete, ten points a mutation. Only customerSet tells codes; what the others object to is told by field and words alone,
and the words (they were seen, no document promises them) are what tells a key that is taken and a customer that is gone.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from adapters.base import Outcome, Write, code_in
from adapters.shopify_queries import metafield_alias, metafield_named
from adapters.writing import failed
from model.errors import (
    DuplicateError,
    ProtocolError,
    RejectedError,
    SourceError,
    SourceForbiddenError,
    UnavailableError,
)
from model.records import Row

MUTATION = 10  # points
_WRITE, _CLEAR = "write_", "clear_"
_SAVED = "customer { id } userErrors { field message }"
_FIELDS: Mapping[str, tuple[str, str, str]] = {  # verb → the mutation, its input type, what is asked of it
    "create": ("customerCreate", "CustomerInput!", _SAVED),
    "update": ("customerUpdate", "CustomerInput!", _SAVED),
    "upsert": ("customerSet", "CustomerSetInput!", "customer { id } userErrors { field message code }"),
    "delete": ("customerDelete", "CustomerDeleteInput!", "deletedCustomerId userErrors { field message }"),
}
_TAKEN = re.compile(r"already been taken", re.IGNORECASE)
_GONE = re.compile(r"does not exist|can.?t be found|not found", re.IGNORECASE)


class Document:
    """One request that writes: a mutation per write, another one for each that empties metafields. They are carried out in order.

    Args:
        gids: the global id of the customer each write is of, None where there is none yet. An upsert with metafields, which
            customerSet does not take, is an update or a create by it.
    """

    def __init__(self, writes: Sequence[Write], gids: Sequence[str | None]) -> None:
        self.variables: Row = {}
        self.safe = True
        self._writes, self._verbs = writes, [_verb(write, gid) for write, gid in zip(writes, gids, strict=True)]
        heads, fields = [], []
        for at, (write, gid, verb) in enumerate(zip(writes, gids, self._verbs, strict=True)):
            mutation, input_type, asked = _FIELDS[verb]
            heads.append(f"$in_{at}: {input_type}")
            arguments = f"input: $in_{at}"
            self.variables[f"in_{at}"] = {**_input(write.row), **({"id": gid} if gid and verb != "upsert" else {})}
            if verb == "upsert":
                heads.append(f"$by_{at}: CustomerSetIdentifiers!")
                arguments += f", identifier: $by_{at}"
                self.variables[f"by_{at}"] = {"email": write.row["email"]}
            fields.append(f"{_WRITE}{at}: {mutation}({arguments}) {{ {asked} }}")
            emptied = [{"ownerId": gid, "namespace": space, "key": key} for space, key in _emptied(write.row)] if gid else []
            if emptied:
                heads.append(f"$gone_{at}: [MetafieldIdentifierInput!]!")
                self.variables[f"gone_{at}"] = emptied
                fields.append(f"{_CLEAR}{at}: metafieldsDelete(metafields: $gone_{at}) {{ userErrors {{ field message }} }}")
            self.safe = self.safe and verb != "create" and write.repeatable
        self.query = f"mutation({', '.join(heads)}) {{ {' '.join(fields)} }}"
        self.cost = MUTATION * len(fields)

    def outcomes(self, body: Mapping[str, Any]) -> list[Outcome]:
        """Return what the answer says became of each write."""
        return [self._outcome(at, body) for at in range(len(self._writes))]

    def _outcome(self, at: int, body: Mapping[str, Any]) -> Outcome:
        write, verb, data = self._writes[at], self._verbs[at], body.get("data") or {}
        for name in (f"{_WRITE}{at}", f"{_CLEAR}{at}"):
            if name in data and data[name] is None:
                return failed(_error_of(name, body))
        if not (said := data.get(f"{_WRITE}{at}")):
            return failed(ProtocolError("the answer says nothing of this write", status=200))
        problems = [*said["userErrors"], *(data.get(f"{_CLEAR}{at}") or {"userErrors": []})["userErrors"]]
        if problems:
            return _refused(write, verb, problems[0])
        id = write.native_id or said["customer"]["id"].rsplit("/", 1)[-1]
        return Outcome(state="APPLIED", native_id=id, created={"create": True, "update": False}.get(verb))


def sets_metafields(write: Write) -> bool:
    return any(metafield_named(name) for name in write.row)


def is_answer_to_writes(body: Mapping[str, Any]) -> bool:
    """Tell whether an answer is that of a document of writes some of which were carried out: then each has errors of its own."""
    data = body.get("data")
    return isinstance(data, dict) and any(name.startswith(_WRITE) for name in data)


def code_of(error: object) -> str:
    """Return the code of a top-level error, "" without one."""
    extensions = error.get("extensions") if isinstance(error, dict) else None
    return code_in(extensions.get("code")) if isinstance(extensions, dict) else ""


def error_named(code: str, **facts: Any) -> SourceError:
    """Return what a top-level error's code means."""
    facts["upstream_code"] = code or None
    if code == "ACCESS_DENIED":
        return SourceForbiddenError("the app lacks a scope", **facts)
    if code == "SHOP_INACTIVE":
        return SourceForbiddenError("the shop is not active", **facts)
    if code == "INTERNAL_SERVER_ERROR":
        return UnavailableError("not available", **facts)
    return RejectedError(f"refused: {code or 'the query'}", **facts)


def _verb(write: Write, gid: str | None) -> str:
    if write.verb == "upsert" and sets_metafields(write):
        return "update" if gid else "create"
    return write.verb


def _input(row: Row) -> Row:
    plain = {name: value for name, value in row.items() if metafield_named(name) is None}
    metafields = [
        {"namespace": named[0], "key": named[1], "value": _text(row[alias]["value"])}
        for alias in row
        if (named := metafield_named(alias)) and row[alias].get("value") not in (None, "")
    ]
    return {**plain, **({"metafields": metafields} if metafields else {})}


def _emptied(row: Row) -> list[tuple[str, str]]:
    """Return the metafields that are to be empty: a blank value is refused, they must be deleted."""
    return [named for alias in row if (named := metafield_named(alias)) and row[alias].get("value") in (None, "")]


def _text(value: Any) -> str:
    """Spell a metafield's value, which is text whatever its type."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _refused(write: Write, verb: str, problem: Row) -> Outcome:
    field = [step for step in problem.get("field") or () if step != "input"]
    code, words = code_in(problem.get("code")), str(problem.get("message") or "")
    facts: dict[str, Any] = {"status": 200, "upstream_code": code or None}
    if code == "NOT_FOUND" or (field == ["id"] and _GONE.search(words)):
        if verb == "delete":
            return Outcome(state="UNCHANGED", native_id=write.native_id)
        return failed(RejectedError("there is no such customer", status=404, upstream_code=code or None))
    if code == "TAKEN" or _TAKEN.search(words):
        outcome = failed(DuplicateError("another customer has this key", **facts))
    elif verb == "delete":
        outcome = failed(RejectedError("cannot be deleted: customers who have placed orders stay", **facts))
    else:
        outcome = failed(RejectedError("refused", **facts))
    return Outcome(state=outcome.state, error=outcome.error, fields=_paths(write, field))


def _paths(write: Write, field: Sequence[str]) -> tuple[str, ...]:
    """Return the native paths that a `userErrors` field names; a metafield is named by its place in the input."""
    if field[:1] == ["metafields"] and len(field) > 1 and field[1].isdigit():
        told = _input(write.row).get("metafields", [])
        one = told[int(field[1])] if int(field[1]) < len(told) else None
        return (f"{metafield_alias(one['namespace'], one['key'])}.value",) if one else ()
    return (field[0],) if field else ()


def _error_of(name: str, body: Mapping[str, Any]) -> SourceError:
    for error in body.get("errors") or ():
        if (error.get("path") or [None])[0] == name:
            return error_named(code_of(error), status=200)
    return ProtocolError("the answer says nothing of this write", status=200)

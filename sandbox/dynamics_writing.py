"""How rows are written: create, update, upsert, delete, lookups by reference, and the actions that close a deal.

After the Web API's pages on creating, updating and conditional operations, and on alternate keys. What the vendor ignores in a
body (columns that cannot be set) is ignored; what it refuses is refused in its words.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from uuid import uuid4

from starlette.responses import Response

from sandbox import odata
from sandbox.dialect import json_response
from sandbox.dynamics_reading import Call, Reader, Refusal, etag, missing, schema_of
from sandbox.dynamics_store import Store, iso
from sandbox.dynamics_tables import SCHEMAS, Column, Schema
from sandbox.table import Row

_REFERENCE = re.compile(r"(?:.*/)?(?P<set>\w+)\((?P<key>[^)]*)\)")
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PAYLOAD = "Error identified in Payload provided by the user for Entity :'{set}', ----> InnerException : Microsoft.OData.ODataException: {why}"
_CLOSED = {"WinOpportunity": (1, "won"), "LoseOpportunity": (2, "lost")}


class Writer:
    """Answers POST, PATCH and DELETE."""

    def __init__(self, store: Store, reader: Reader) -> None:
        self._store, self._reader = store, reader

    def create(self, call: Call, schema: Schema) -> Response:
        said = self._body(call)
        values = self._values(schema, said)
        id = str(said.get(schema.id) or uuid4()).lower()
        if self._store.get(schema.logical, id) is not None:
            raise Refusal(412, "0x80040237", "Cannot insert duplicate key.")
        return self._created(call, schema, id, values)

    def update(self, call: Call, schema: Schema, key: str) -> Response:
        """PATCH: with If-Match of a row that is there, without it of one that is made where it is not."""
        values = self._values(schema, self._body(call))
        id, row, by = self.named(schema, key)
        match, unless = call.headers.get("if-match"), call.headers.get("if-none-match")
        if row is None:
            if match is not None:
                raise missing(schema, id or key)
            return self._created(call, schema, id or str(uuid4()), {**values, **by})
        if unless == "*":
            raise Refusal(412, "0x80040237", "A record with matching key values already exists.")
        self._matched(row, match)
        self._check_states(schema, row, values)
        self._check_keys(schema, row[schema.id], values)
        changed = self._store.put(schema, self._with_states(schema, {**row, **values}, values))
        return self._written(call, schema, changed, status=200)

    def delete(self, call: Call, schema: Schema, key: str) -> Response:
        id, row, _ = self.named(schema, key)
        if row is None:
            raise missing(schema, id or key)
        self._matched(row, call.headers.get("if-match"))
        self._store.remove(schema, row[schema.id])
        return Response(status_code=204)

    def unlink(self, schema: Schema, key: str, navigation: str) -> Response:
        """DELETE …/{navigation}/$ref: clear a lookup."""
        id, row, _ = self.named(schema, key)
        if row is None:
            raise missing(schema, id or key)
        if navigation not in schema.navigations():
            raise Refusal(400, "0x80060888", f"Could not find a property named '{navigation}'.")
        self._store.put(schema, {**row, schema.stored(schema.navigations()[navigation][0]): None})
        return Response(status_code=204)

    def close(self, call: Call, action: str) -> Response:
        """WinOpportunity and LoseOpportunity: the only way a deal becomes won or lost."""
        state, word = _CLOSED[action]
        said = self._body(call)
        schema, close = SCHEMAS["opportunity"], said.get("OpportunityClose")
        if not isinstance(close, dict) or "opportunityid@odata.bind" not in close:
            raise Refusal(
                400, "0x80048d19", _PAYLOAD.format(set="opportunities", why="The parameter 'OpportunityClose' is required.")
            )
        _, id = self._referenced(schema, "opportunityid", close["opportunityid@odata.bind"])
        row, status = self._store.get("opportunity", id), said.get("Status")
        if row is None:
            raise missing(schema, id)
        if schema.columns["statuscode"].states.get(status or 0) != state:
            raise Refusal(
                400,
                "0x80048408",
                f"{status} is not a valid status code for state code OpportunityState.{word.title()} on opportunity with Id {id}.",
            )
        if row["statecode"] != 0:
            raise Refusal(400, "0x80060003", "The opportunity has already been closed.")
        value = close.get("actualrevenue", row["estimatedvalue"] if state == 1 else 0.0)
        closed = {
            "statecode": state,
            "statuscode": status,
            "actualvalue": value,
            "actualclosedate": str(close.get("actualend") or self._today())[:10],
        }
        self._store.put(schema, {**row, **closed})
        return Response(status_code=204)

    def create_multiple(self, call: Call, schema: Schema) -> Response:
        """CreateMultiple: all or nothing."""
        targets = self._body(call).get("Targets") or []
        values = [self._values(schema, each) for each in targets]
        for each in values:
            self._check_keys(schema, None, each)
        ids = [str(each.get(schema.id) or uuid4()).lower() for each in targets]
        for id, each in zip(ids, values, strict=True):
            self._insert(schema, id, each)
        return json_response(
            {"@odata.context": f"{call.root}/$metadata#Microsoft.Dynamics.CRM.CreateMultipleResponse", "Ids": ids}
        )

    def update_multiple(self, call: Call, schema: Schema) -> Response:
        """UpdateMultiple: all or nothing."""
        found = []
        for each in self._body(call).get("Targets") or []:
            values, id = self._values(schema, each), str(each.get(schema.id, "")).lower()
            row = self._store.get(schema.logical, id)
            if row is None:
                raise missing(schema, id)
            self._check_states(schema, row, values)
            self._check_keys(schema, id, values)
            found.append(self._with_states(schema, {**row, **values}, values))
        for row in found:
            self._store.put(schema, row)
        return Response(status_code=204)

    def named(self, schema: Schema, key: str) -> tuple[str | None, Row | None, Row]:
        """Return the id, the row and the key's values that a key in a path names.

        A GUID is a key; so is a column that an alternate key is defined on.
        """
        if _GUID.fullmatch(key):
            return key.lower(), self._store.get(schema.logical, key), {}
        name, _, value = key.partition("=")
        if name not in schema.keys:
            raise Refusal(
                400, "0x80060888", f"The key property '{name}' is not defined on type 'Microsoft.Dynamics.CRM.{schema.logical}'."
            )
        text = value.strip("'").replace("''", "'")
        rows = self._store.tables[schema.logical].having(name, [odata.fold(text)])
        return (rows[0][schema.id], rows[0], {name: text}) if rows else (None, None, {name: text})

    # ---- steps ----

    def _body(self, call: Call) -> dict[str, Any]:
        said = call.json()
        if not isinstance(said, dict):
            raise Refusal(
                400,
                "0x80048d19",
                "An error occurred while validating input parameters: Microsoft.OData.ODataException: an object is expected.",
            )
        return said

    def _created(self, call: Call, schema: Schema, id: str, values: Row) -> Response:
        self._check_keys(schema, None, values)
        if call.headers.get("mscrm.suppressduplicatedetection") == "false":
            self._check_duplicates(schema, values)
        if schema.logical == "opportunity" and values.get("statecode", 0) != 0:
            raise Refusal(400, "0x80048408", f"{values.get('statuscode')} is not a valid status code for a new opportunity.")
        return self._written(call, schema, self._insert(schema, id, values), status=201)

    def _insert(self, schema: Schema, id: str, values: Row) -> Row:
        empty = {schema.stored(name): None for name, column in schema.columns.items() if not column.virtual}
        row = {
            **empty,
            **_defaults(schema),
            **{name: value for name, value in values.items() if value is not None or name not in _defaults(schema)},
        }
        row |= {schema.id: id, "createdon": None}
        if "_ownerid_value" in row and row["_ownerid_value"] is None:
            row["_ownerid_value"] = next(iter(self._store.tables["systemuser"]))["systemuserid"]
        if schema.logical == "opportunity" and row["_customerid_value"] is None:
            row["_customerid_value"] = row["_parentaccountid_value"] or row["_parentcontactid_value"]
        del row["createdon"]
        return self._store.put(schema, self._with_states(schema, row, values))

    def _written(self, call: Call, schema: Schema, row: Row, *, status: int) -> Response:
        where = f"{call.root}/{schema.set}({row[schema.id]})"
        if call.prefers("return") == "representation":
            return self._reader.one(call, schema, row, status=status, headers={"OData-EntityId": where})
        headers = {"OData-EntityId": where, "OData-Version": "4.0"}
        return Response(status_code=204, headers={**headers, **({"Location": where} if status == 201 else {})})

    def _matched(self, row: Row, match: str | None) -> None:
        if match not in {None, "*", etag(row)}:
            raise Refusal(412, "0x80060882", "The version of the existing record doesn't match the RowVersion property provided.")

    def _check_keys(self, schema: Schema, id: str | None, values: Row) -> None:
        """Refuse a value of an alternate key that another row has."""
        for name in schema.keys & values.keys():
            if values[name] is not None:
                rows = self._store.tables[schema.logical].having(name, [odata.fold(values[name])])
                if any(row[schema.id] != id for row in rows):
                    raise Refusal(
                        412, "0x80060892",
                        f"A record that has the attribute values {schema.columns[name].label} already exists. The entity key requires that this set of attributes contains unique values. Select unique values and try again.",
                    )  # fmt: skip

    def _check_duplicates(self, schema: Schema, values: Row) -> None:
        email = values.get("emailaddress1")
        if email and "emailaddress1" in self._store.tables[schema.logical].indexed:
            rows = self._store.tables[schema.logical].having("emailaddress1", [odata.fold(email)])
            if any(row["statecode"] == 0 for row in rows):
                raise Refusal(
                    412,
                    "0x80040333",
                    "A record was not created or updated because a duplicate of the current record already exists.",
                )

    def _check_states(self, schema: Schema, row: Row, values: Row) -> None:
        if schema.logical == "opportunity" and (values.get("statecode") or 0) != 0:
            raise Refusal(400, "0x80048408", "An opportunity is closed by WinOpportunity or LoseOpportunity only.")
        state = values.get("statecode", row.get("statecode"))
        status = values.get("statuscode")
        if status is not None and schema.columns["statuscode"].states.get(status) != state:
            raise Refusal(
                400,
                "0x80048408",
                f"{status} is not a valid status code for state code {state} on {schema.logical} with Id {row[schema.id]}.",
            )

    def _with_states(self, schema: Schema, row: Row, values: Row) -> Row:
        """Give a row whose state alone was set the first status of that state."""
        if "statecode" in values and "statuscode" not in values:
            states = schema.columns["statuscode"].states
            row["statuscode"] = next(status for status, state in states.items() if state == values["statecode"])
        return row

    def _values(self, schema: Schema, said: Mapping[str, Any]) -> Row:
        """Return what a body sets, by stored name; what cannot be set is left out."""
        found: Row = {}
        for name, value in said.items():
            if name.endswith("@odata.bind"):
                navigation = name.removesuffix("@odata.bind")
                if navigation not in schema.navigations():
                    raise _payload(
                        schema,
                        f"An undeclared property '{navigation}' which only has property annotations in the payload but no property value was found in the payload.",
                    )
                lookup, table = schema.navigations()[navigation]
                if value is None:
                    found.setdefault(schema.stored(lookup), None)
                else:
                    found[schema.stored(lookup)] = self._referenced(SCHEMAS[table], navigation, value)[1]
                continue
            if name.startswith("@") or "@" in name:
                continue
            if name.startswith("_") and name.endswith("_value"):
                raise _payload(
                    schema, "CRM do not support direct update of Entity Reference properties, Use Navigation properties instead."
                )
            column = schema.columns.get(name)
            if column is None or column.type in {"lookup", "virtual"}:
                raise _payload(
                    schema, f"Invalid property '{name}' was found in entity 'Microsoft.Dynamics.CRM.{schema.logical}'."
                )
            if column.settable and name != schema.id:
                found[name] = _checked(schema, name, column, value)
        # An amount that the system works out from products cannot be given (isrevenuesystemcalculated).
        if found.get("isrevenuesystemcalculated") is True:
            found.pop("estimatedvalue", None)
        return found

    def _referenced(self, schema: Schema, navigation: str, value: Any) -> tuple[Schema, str]:
        said = _REFERENCE.fullmatch(str(value))
        if said is None:
            raise Refusal(
                400, "0x80048d19", f"The URI '{navigation}' is not valid because it is not based on a known entity set."
            )
        other = schema_of(said["set"])
        if other.logical != schema.logical:
            raise Refusal(400, "0x80048d19", f"A '{other.logical}' cannot be bound to '{navigation}'.")
        id, row, _ = self.named(other, said["key"])
        if row is None:
            raise missing(other, id or said["key"])
        return other, str(row[other.id])

    def _today(self) -> str:
        return iso(self._store.now())[:10]


def _defaults(schema: Schema) -> Row:
    found: Row = {}
    for name, column in schema.columns.items():
        if column.type == "state":
            found[name] = 0
        elif column.type == "status":
            found[name] = next(iter(column.options))
        elif column.type == "bool":
            found[name] = False
    return found


def _checked(schema: Schema, name: str, column: Column, value: Any) -> Any:
    """Return the value as it is kept.

    Raises:
        Refusal: it is of the wrong type, too long, or no option.
    """
    if value is None:
        return None
    kinds: Mapping[str, type | tuple[type, ...]] = {
        "string": str, "memo": str, "multi": str, "int": int, "option": int, "state": int, "status": int, "decimal": (int, float), "money": (int, float),
        "bool": bool, "date": str, "datetime": str, "guid": str,
    }  # fmt: skip
    wanted: Any = kinds[column.type]
    if not isinstance(value, wanted) or (isinstance(value, bool) and column.type != "bool"):
        raise _payload(schema, f"Cannot convert the literal '{value}' to the expected type of '{name}'.")
    if column.type in {"string", "memo"} and len(value) > column.length:
        raise Refusal(
            400,
            "0x80044331",
            f"A validation error occurred.  The length of the '{name}' attribute of the '{schema.logical}' entity exceeded the maximum allowed length of '{column.length}'.",
        )
    if column.options:
        numbers = value.split(",") if column.type == "multi" else [value]
        for each in numbers:
            if not str(each).isdigit() or int(each) not in column.options:
                accepted = ",".join(str(option) for option in column.options)
                raise Refusal(
                    400,
                    "0x8004431a",
                    f"A validation error occurred. The value {each} of '{name}' on record of type '{schema.logical}' is outside the valid range. Accepted Values: {accepted}",
                )
    if column.type in {"date", "datetime"}:
        try:
            if column.type == "date":
                date.fromisoformat(value)
            else:
                datetime.fromisoformat(value)
        except ValueError as error:
            raise _payload(
                schema,
                f"Cannot convert the literal '{value}' to the expected type 'Edm.{'Date' if column.type == 'date' else 'DateTimeOffset'}'.",
            ) from error
    return float(value) if column.type in {"decimal", "money"} else value


def _payload(schema: Schema, why: str) -> Refusal:
    return Refusal(400, "0x80048d19", _PAYLOAD.format(set=schema.set, why=why))

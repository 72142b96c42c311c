"""How an org writes: one record, collections of 200 that fail record by record, upserts by external id, conditional updates.

From the REST API guide's pages on sObject rows, sObject collections and conditional requests (which DELETE does not heed). One
duplicate rule is active: a contact or lead with the address and family name of another is refused, until the caller says that it
may be saved. Two validation rules stand for an administrator's.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Endpoint, json_response
from sandbox.salesforce_answers import VERSION, Refusal, millis, moment, sf_id, spelled, whole_id
from sandbox.salesforce_fields import (
    EXTERNAL,
    FIELDS,
    LENGTHS,
    PICKLISTS,
    PREFIXES,
    REFERS,
    REQUIRED,
    RESTRICTED,
    STAGES,
    read_only,
)
from sandbox.table import Row, Table

_COLLECTION = 200
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_NOT_TEXT = frozenset({"boolean", "double", "currency", "percent", "int"})
_RULES: Mapping[str, tuple[str, str]] = {  # object → (number that must not be negative, what the administrator wrote)
    "Contact": ("Score__c", "The score cannot be negative."), "Opportunity": ("Amount", "An amount cannot be negative."),
}  # fmt: skip
_CASCADES = {  # object → what goes with it
    "Account": (("Contact", "AccountId"), ("Opportunity", "AccountId")), "Contact": (("OpportunityContactRole", "ContactId"),),
    "Opportunity": (("OpportunityContactRole", "OpportunityId"),),
}  # fmt: skip
_BELONGS = {  # object → what moves along when it is merged
    "Account": (("Contact", "AccountId"), ("Opportunity", "AccountId")), "Contact": (("OpportunityContactRole", "ContactId"),),
}  # fmt: skip


class Writing:
    """
    Args:
        tables: by object name.
    """

    def __init__(self, clock: SandboxClock, tables: Mapping[str, Table[Any]]) -> None:
        self._clock, self._tables = clock, tables
        self._last = 70_000_000_000
        self._journal: list[tuple[str, str, Row | None]] = []  # (object, id, the row before) of one transaction
        self._open = False
        self._committed: list[Callable[[], None]] = []

    def endpoints(self) -> list[Endpoint]:
        root = f"/services/data/{VERSION}"
        return [
            *(Endpoint("POST", f"{root}/sobjects/{{object}}{slash}", _answering(self._create)) for slash in ("", "/")),
            Endpoint("PATCH", f"{root}/sobjects/{{object}}/{{id}}", _answering(self._update)),
            Endpoint("DELETE", f"{root}/sobjects/{{object}}/{{id}}", _answering(self._delete)),
            Endpoint("PATCH", f"{root}/sobjects/{{object}}/{{field}}/{{value:path}}", _answering(self._upsert)),
            Endpoint("POST", f"{root}/composite/sobjects", _answering(self._create_many)),
            Endpoint("PATCH", f"{root}/composite/sobjects", _answering(self._update_many)),
            Endpoint("DELETE", f"{root}/composite/sobjects", _answering(self._delete_many)),
            Endpoint("PATCH", f"{root}/composite/sobjects/{{object}}/{{field}}", _answering(self._upsert_many)),
        ]

    # ---- one record ----

    async def _create(self, request: Request) -> Response:
        id = self.insert(_object(request), await _fields(request), allow=_allowed(request))
        return json_response({"id": id, "success": True, "errors": []}, status=201)

    async def _update(self, request: Request) -> Response:
        name, given = _object(request), await _fields(request)
        row = self._there(name, request.path_params["id"])
        if (since := request.headers.get("if-unmodified-since")) is not None:
            try:
                unmodified = parsedate_to_datetime(since)
            except ValueError:
                raise Refusal(400, "INVALID_HEADER", "If-Unmodified-Since is no HTTP date") from None
            if moment(row["LastModifiedDate"]) > unmodified:
                raise Refusal(412, "PRECONDITION_FAILED", "The record was modified since the date of the condition")
        self.update(name, row, given)
        return Response(status_code=204)

    async def _delete(self, request: Request) -> Response:
        name = _object(request)
        self.delete(name, self._there(name, request.path_params["id"]))
        return Response(status_code=204)

    async def _upsert(self, request: Request) -> Response:
        field, value = request.path_params["field"], request.path_params["value"]
        id, created = self._upserted(_object(request), field, {field: value, **await _fields(request)}, allow=_allowed(request))
        return json_response({"id": id, "success": True, "errors": [], "created": created}, status=201 if created else 200)

    # ---- collections ----

    async def _create_many(self, request: Request) -> Response:
        allow = _allowed(request)

        def create(record: Row) -> Row:
            return {"id": self.insert(_kind(record), _said(record), allow=allow), "success": True, "errors": []}

        return self._each(*await _records(request), create)

    async def _update_many(self, request: Request) -> Response:
        def update(record: Row) -> Row:
            id = str(record.get("Id") or record.get("id") or "")
            if not id:
                raise Refusal(400, "MISSING_ARGUMENT", "Id not specified in an update call")
            name = _kind(record)
            self.update(
                name, self._there(name, id, collection=True), {k: v for k, v in _said(record).items() if k.lower() != "id"}
            )
            return {"id": whole_id(id), "success": True, "errors": []}

        return self._each(*await _records(request), update)

    async def _upsert_many(self, request: Request) -> Response:
        name, field, allow = _object(request), request.path_params["field"], _allowed(request)

        def upsert(record: Row) -> Row:
            id, created = self._upserted(name, field, _said(record), allow=allow)
            return {"id": id, "success": True, "errors": [], "created": created}

        return self._each(*await _records(request), upsert)

    async def _delete_many(self, request: Request) -> Response:
        ids = [each for each in request.query_params.get("ids", "").split(",") if each]
        if not ids:
            raise Refusal(400, "MISSING_ARGUMENT", "ids is required")

        def delete(id: str) -> Row:
            name = next((name for name, prefix in PREFIXES.items() if id.startswith(prefix)), "")
            if name not in REQUIRED:
                raise Refusal(400, "MALFORMED_ID", f"malformed id {id}")
            self.delete(name, self._there(name, id, collection=True))
            return {"id": whole_id(id), "success": True, "errors": []}

        return self._each(ids, request.query_params.get("allOrNone") == "true", delete)

    def _each(self, records: Sequence[Any], all_or_none: bool, write: Callable[[Any], Row]) -> Response:
        if len(records) > _COLLECTION:
            raise Refusal(
                400, "EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {_COLLECTION} records into this call"
            )
        results: list[Row] = []
        with self.transaction() as undo:
            for each in records:
                try:
                    results.append(write(each))
                except Refusal as refusal:
                    if refusal.code == "JSON_PARSER_ERROR":
                        undo()
                        raise
                    results.append(refusal.of_record)
            if all_or_none and not all(each["success"] for each in results):
                undo()
        if all_or_none and not all(each["success"] for each in results):
            message = "Record rolled back because not all records were valid and the request was using AllOrNone header"
            rolled = Refusal(400, "ALL_OR_NONE_OPERATION_ROLLED_BACK", message).of_record
            results = [rolled if each["success"] else each for each in results]
        return json_response(results)

    # ---- what is done to rows ----

    @contextmanager
    def transaction(self) -> Iterator[Callable[[], None]]:
        """Give a function that takes back what was kept since."""
        self._journal.clear()
        self._open = True

        def undo() -> None:
            for name, id, before in reversed(self._journal):
                if before is None:
                    self._tables[name].remove(id)
                else:
                    self._tables[name].put(id, before)
            self._committed.clear()

        try:
            yield undo
        finally:
            self._open = False
            waiting, self._committed = self._committed, []
            for tell in waiting:
                tell()

    def after_commit(self, tell: Callable[[], None]) -> None:
        """Do something once the transaction that is open, if any, is committed; never when it is taken back."""
        if self._open:
            self._committed.append(tell)
        else:
            tell()

    def merge(self, name: str, winner: Row, loser: Row) -> None:
        """Let a record go into another: it lands in the recycle bin under its `MasterRecordId`, and what belonged to it moves along."""
        with self.transaction():
            for child, field in _BELONGS.get(name, ()):
                for each in self._tables[child].having(field, [loser["Id"]]):
                    if not each["IsDeleted"]:
                        self._keep(child, {**each, **self._moved(), field: winner["Id"]}, before=each)
            blank = {field: value for field, value in loser.items() if winner.get(field) is None and not read_only(name, field)}
            self._keep(name, _derived(name, {**winner, **blank, **self._moved()}, blank), before=winner)
            gone = {"IsDeleted": True, "MasterRecordId": winner["Id"]}
            self._keep(name, {**loser, **self._moved(), **gone}, before=loser)

    def insert(self, name: str, given: Row, *, allow: bool) -> str:
        """Keep a new record; return its id."""
        if name not in REQUIRED:
            raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        values = self._checked(name, given, before=None)
        self._unlike(name, values, allow=allow)
        self._last += 1
        id, now = sf_id(PREFIXES[name], self._last), spelled(self._clock.time() * 1000)
        stamps = {"CreatedDate": now, "LastModifiedDate": now, "SystemModstamp": now, "IsDeleted": False}
        ours = {
            "OwnerId": sf_id("005", 1),
            "CurrencyIsoCode": "USD",
            "IsConverted": False,
            "Status": "Open - Not Contacted",
            "IsPrimary": False,
        }
        blank = {field: False if type == "boolean" else None for field, type in FIELDS[name].items()}
        if name.endswith("__c"):
            values.setdefault("Name", f"{name[:3].upper()}-{self._last % 10_000:04d}")
        row = {**blank, **{field: value for field, value in ours.items() if field in blank}, **values, **stamps, "Id": id}
        if name == "OpportunityContactRole" and row["IsPrimary"]:
            self._only_primary(row)
        self._keep(name, _derived(name, row, row), before=None)
        return id

    def update(self, name: str, row: Row, given: Row) -> Row:
        """Change a record; its times move, even where the values are what they were."""
        values = self._checked(name, given, before=row)
        after = _derived(name, {**row, **values, **self._moved()}, values)
        if name == "OpportunityContactRole" and values.get("IsPrimary"):
            self._only_primary(after)
        self._keep(name, after, before=row)
        return after

    def delete(self, name: str, row: Row) -> None:
        """Put a record, and what goes with it, into the recycle bin."""
        owned = [
            (child, each)
            for child, field in _CASCADES.get(name, ())
            for each in self._tables[child].having(field, [row["Id"]])
            if not each["IsDeleted"]
        ]
        if name == "Account" and any(child == "Opportunity" and each["IsWon"] for child, each in owned):
            message = (
                "Your attempt to delete the account could not be completed because some of its opportunities were closed won."
            )
            raise Refusal(400, "DELETE_FAILED", message)
        for child, each in owned:
            self.delete(child, each)
        self._keep(name, {**row, **self._moved(), "IsDeleted": True}, before=row)

    def _upserted(self, name: str, field: str, given: Row, *, allow: bool) -> tuple[str, bool]:
        if field == "Id":
            row = self._there(name, str(given.get("Id")))
            self.update(name, row, {key: value for key, value in given.items() if key != "Id"})
            return str(row["Id"]), False
        if field not in EXTERNAL or field not in FIELDS[name]:
            raise Refusal(404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {field}")
        found = self._carriers(name, field, given.get(field))
        if found:
            self.update(name, found[0], given)
            return str(found[0]["Id"]), False
        return self.insert(name, given, allow=allow), True

    def _there(self, name: str, id: str, *, collection: bool = False) -> Row:
        row = self._tables[name].get(whole_id(id)) if len(id) in {15, 18} else None
        if row is None:
            if collection:
                raise Refusal(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
            raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        if row.get("IsDeleted"):
            raise Refusal(404, "ENTITY_IS_DELETED", "entity is deleted")
        return row

    def _keep(self, name: str, row: Row, *, before: Row | None) -> None:
        self._journal.append((name, row["Id"], before))
        self._tables[name].put(row["Id"], row)

    def _moved(self) -> Row:
        now = spelled(self._clock.time() * 1000)
        return {"LastModifiedDate": now, "SystemModstamp": now}

    def _only_primary(self, role: Row) -> None:
        for other in self._tables["OpportunityContactRole"].having("OpportunityId", [role["OpportunityId"]]):
            if other["IsPrimary"] and other["Id"] != role["Id"]:
                self._keep("OpportunityContactRole", {**other, **self._moved(), "IsPrimary": False}, before=other)

    # ---- what may be written ----

    def _checked(self, name: str, given: Row, *, before: Row | None) -> Row:
        values = {field: self._value(name, field, value, new=before is None) for field, value in given.items()}
        after = {**(before or {}), **values}
        missing = [field for field in REQUIRED[name] if after.get(field) in (None, "")]
        if missing:
            raise Refusal(400, "REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(missing)}]", missing)
        for field in EXTERNAL & values.keys():
            others = [each for each in self._carriers(name, field, values[field]) if before is None or each["Id"] != before["Id"]]
            if others:
                message = f"duplicate value found: {field} duplicates value on record with id: {others[0]['Id']}"
                raise Refusal(400, "DUPLICATE_VALUE", message, [])
        field, rule = _RULES.get(name, ("", ""))
        if field in values and (values[field] or 0) < 0:
            raise Refusal(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", rule, [field])
        return values

    def _carriers(self, name: str, field: str, value: Any) -> list[Row]:
        return [each for each in self._tables[name].having(field, [value]) if not each["IsDeleted"]] if value else []

    def _unlike(self, name: str, values: Row, *, allow: bool) -> None:
        email, family = values.get("Email"), str(values.get("LastName") or "").lower()
        if allow or not email:
            return
        for each in self._tables[name].having("Email", [email.lower()]):
            if not each["IsDeleted"] and str(each["LastName"] or "").lower() == family:
                raise Refusal(
                    400,
                    "DUPLICATES_DETECTED",
                    "You're creating a duplicate record. We recommend you use an existing record instead.",
                    [],
                )

    def _value(self, name: str, field: str, value: Any, *, new: bool) -> Any:
        type = FIELDS[name].get(field)
        if type is None:
            raise Refusal(400, "INVALID_FIELD", f"No such column '{field}' on sobject of type {name}")
        fixed = name == "OpportunityContactRole" and field == "OpportunityId" and not new
        if read_only(name, field) or fixed:
            message = f"Unable to create/update fields: {field}. Please check the security settings of this field and verify that it is read/write."
            raise Refusal(400, "INVALID_FIELD_FOR_INSERT_UPDATE", message, [field])
        if value is None or value == "":
            return False if type == "boolean" else None
        if type == "reference":
            return self._reference(field, value)
        return _typed(field, type, value)

    def _reference(self, field: str, value: Any) -> str:
        id = whole_id(str(value))
        objects = REFERS.get(field, ())
        if len(id) != 18 or not any(id.startswith(PREFIXES[each]) for each in objects):
            raise Refusal(400, "MALFORMED_ID", f"{field}: id value of incorrect type: {value}", [field])
        rows = (self._tables[each].get(id) for each in objects)
        if not any(row is not None and not row.get("IsDeleted") for row in rows):
            raise Refusal(400, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", [])
        return id


def _typed(field: str, type: str, value: Any) -> Any:
    """Return a value as it is kept."""
    try:
        if type in {"double", "currency", "percent", "int"} and not isinstance(value, bool):
            return int(value) if type == "int" else float(value)
        if type == "boolean" and value in (True, False, "true", "false"):
            return value in (True, "true")
        if type == "date":
            return date.fromisoformat(str(value)[:10]).isoformat()
        if type == "datetime":
            return spelled(millis(value))
    except ValueError:
        raise _unreadable(type, value) from None
    if not isinstance(value, str) or type in _NOT_TEXT:
        raise _unreadable(type, value)
    if type == "email" and not _EMAIL.fullmatch(value):
        raise Refusal(400, "INVALID_EMAIL_ADDRESS", f"{field}: invalid email address: {value}", [field])
    if len(value) > LENGTHS.get(field, 255) and type != "textarea":
        raise Refusal(
            400, "STRING_TOO_LONG", f"{field}: data value too large: {value} (max length={LENGTHS.get(field, 255)})", [field]
        )
    if field in RESTRICTED and value not in PICKLISTS[field]:
        message = f"{field}: bad value for restricted picklist field: {value}"
        raise Refusal(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, [field])
    return value


def _unreadable(type: str, value: Any) -> Refusal:
    return Refusal(
        400,
        "JSON_PARSER_ERROR",
        f"Cannot deserialize instance of {type} from {value!r} or request may be missing a required field",
    )


def _derived(name: str, row: Row, values: Row) -> Row:
    """Return a row with what the org works out by itself: the whole name, and what a stage says."""
    if name in {"Contact", "Lead"}:
        row["Name"] = " ".join(part for part in (row["FirstName"], row["LastName"]) if part)
    if name == "Opportunity" and "StageName" in values:
        stage = next((each for each in STAGES if each[0] == row["StageName"]), (row["StageName"], 0, False, False))
        row |= {"IsClosed": stage[2], "IsWon": stage[3], "ForecastCategory": "Closed" if stage[2] else "Pipeline"}
        if "Probability" not in values or values["Probability"] is None:
            row["Probability"] = float(stage[1])
    return row


# ---- requests ----


def _answering(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refusal.response

    return answering


def _object(request: Request) -> str:
    name: str = request.path_params["object"]
    if name not in REQUIRED:
        raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
    return name


def _kind(record: Row) -> str:
    name = (record.get("attributes") or {}).get("type")
    if name not in REQUIRED:
        raise Refusal(400, "INVALID_TYPE", f"sObject type '{name}' is not supported.")
    return str(name)


def _said(record: Row) -> Row:
    return {name: value for name, value in record.items() if name not in {"attributes", "id"}}


def _allowed(request: Request) -> bool:
    return "allowsave=true" in request.headers.get("sforce-duplicate-rule-header", "").replace(" ", "").lower()


async def _fields(request: Request) -> Row:
    return _said(await _json(request))


async def _records(request: Request) -> tuple[list[Row], bool]:
    body = await _json(request)
    records = body.get("records")
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise Refusal(400, "JSON_PARSER_ERROR", "records is required")
    return records, body.get("allOrNone") is True


async def _json(request: Request) -> Row:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "JSON_PARSER_ERROR", f"Unexpected character: {error.msg}") from None
    if not isinstance(body, dict):
        raise Refusal(400, "JSON_PARSER_ERROR", "an object is required")
    return body

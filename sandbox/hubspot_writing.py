"""How HubSpot writes: singles, batches of 100 that fail record by record, upserts by a unique property, merges, associations.

From the CRM object, associations v4 and error handling pages. A batch whose inputs all carry an `objectWriteTraceId` fails record
by record, with a 207; one without is refused as a whole, and nothing of it is written.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, StrictBool, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import Endpoint, json_response
from sandbox.hubspot_answers import Loose, Refusal, batch, invalid, shuffled
from sandbox.hubspot_links import Links, default, labels, pair, pair_of
from sandbox.hubspot_properties import DEFAULTS, projected
from sandbox.hubspot_store import Store, split
from sandbox.hubspot_values import checked
from sandbox.table import Row

_BATCH, _LINKS = 100, 2000
_UNIQUE = {"contacts": "email"}
_MISSING = "Could not get some {kind} objects, they may be deleted or not exist. Check that ids are valid."


class _Spec(Loose):
    associationCategory: str
    associationTypeId: int


class _Object(Loose):
    id: str


class _Association(Loose):
    to: _Object
    types: list[_Spec]


class _New(Loose):
    properties: dict[str, str | StrictBool | None]
    associations: list[_Association] = []
    objectWriteTraceId: str | None = None


class _Change(Loose):
    id: str
    properties: dict[str, str | StrictBool | None]
    idProperty: str | None = None
    objectWriteTraceId: str | None = None


class _Patch(Loose):
    properties: dict[str, str | StrictBool | None]


class _Creates(Loose):
    inputs: list[_New]


class _Changes(Loose):
    inputs: list[_Change]


class _Objects(Loose):
    inputs: list[_Object]


class _Merge(Loose):
    primaryObjectId: str
    objectIdToMerge: str


class _Forget(Loose):
    objectId: str
    idProperty: str | None = None


class _Link(Loose):
    # `from` is a word of Python's
    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_"))

    from_: _Object
    to: _Object | list[_Object]
    types: list[_Spec] = []


class _Links(Loose):
    inputs: list[_Link]


Body = TypeVar("Body", bound=BaseModel)
_SPECS = TypeAdapter(list[_Spec])


class Writing:
    """The endpoints that change a portal's records."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def endpoints(self, objects: str, links: str, single: str, names: Sequence[tuple[str, str]]) -> list[Endpoint]:
        """Return the endpoints of one path family.

        Args:
            names: (what the path says, object name).
        """
        return [
            Endpoint("POST", f"{objects}/contacts/merge", _answering(self._merge)),
            Endpoint("POST", f"{objects}/contacts/gdpr-delete", _answering(self._forget)),
            Endpoint("PUT", single + "/{type}/{id}/associations/default/{to}/{to_id}", _answering(self._tie_by_default)),
            Endpoint("PUT", single + "/{type}/{id}/associations/{to}/{to_id}", _answering(self._tie)),
            Endpoint("DELETE", single + "/{type}/{id}/associations/{to}/{to_id}", _answering(self._untie)),
            Endpoint("POST", links + "/{from}/{to}/batch/associate/default", _answering(self._tie_many_by_default)),
            Endpoint("POST", links + "/{from}/{to}/batch/create", _answering(self._tie_many)),
            Endpoint("POST", links + "/{from}/{to}/batch/archive", _answering(self._untie_many)),
            *(
                endpoint
                for name, kind in names
                for endpoint in (
                    Endpoint("POST", f"{objects}/{name}", _answering(partial(self._create, kind))),
                    Endpoint("POST", f"{objects}/{name}/batch/create", _answering(partial(self._create_many, kind))),
                    Endpoint("POST", f"{objects}/{name}/batch/update", _answering(partial(self._update_many, kind))),
                    Endpoint("POST", f"{objects}/{name}/batch/upsert", _answering(partial(self._upsert_many, kind))),
                    Endpoint("POST", f"{objects}/{name}/batch/archive", _answering(partial(self._archive_many, kind))),
                    Endpoint("PATCH", f"{objects}/{name}/{{id}}", _answering(partial(self._update, kind))),
                    Endpoint("DELETE", f"{objects}/{name}/{{id}}", _answering(partial(self._archive, kind))),
                )
            ),
        ]

    # ---- singles ----

    async def _create(self, kind: str, request: Request) -> Response:
        return json_response(self._made(kind, await _body(request, _New)), status=201)

    async def _update(self, kind: str, request: Request) -> Response:
        asked = await _body(request, _Patch)
        row = self._store.one(kind, request.path_params["id"], request.query_params.get("idProperty"))
        if row is None or row["archived"]:
            raise Refusal(404, "OBJECT_NOT_FOUND", "resource not found")
        return json_response(self._changed(kind, row, asked.properties))

    async def _archive(self, kind: str, request: Request) -> Response:
        self._store.archive(kind, request.path_params["id"])
        return Response(status_code=204)  # whether or not there was something to archive

    async def _merge(self, request: Request) -> Response:
        asked = await _body(request, _Merge)
        row = self.merge(asked.primaryObjectId, asked.objectIdToMerge)
        if row is None:
            raise Refusal(400, "VALIDATION_ERROR", "Unable to merge: both records must be there and differ.")
        return json_response(_shown("contacts", row))

    def merge(self, winner_id: str, loser_id: str) -> Row | None:
        """Merge two contacts, None where that cannot be."""
        winner, loser = (self._store.one("contacts", id) for id in (winner_id, loser_id))
        if winner is None or loser is None or winner["archived"] or loser["archived"] or winner["id"] == loser["id"]:
            return None
        mine, theirs = winner["properties"], loser["properties"]
        addresses = dict.fromkeys(
            each for row in (mine, theirs) for each in (row.get("email"), *split(row.get("hs_additional_emails"))) if each
        )
        first, *more = [*addresses] or [None]
        kept = {name: value for name, value in theirs.items() if value and not mine.get(name)}
        names = {"email": first, "hs_additional_emails": ";".join(map(str, more)) or None}
        return self._store.merge("contacts", winner, loser, {**kept, **names})

    async def _forget(self, request: Request) -> Response:
        asked = await _body(request, _Forget)
        row = self._store.one("contacts", asked.objectId, asked.idProperty)
        if row is not None:
            self._store.forget(row["id"])
        return Response(status_code=204)  # whether or not there was someone to forget

    # ---- batches ----

    async def _create_many(self, kind: str, request: Request) -> Response:
        inputs = (await _body(request, _Creates)).inputs
        emails = [str(each.properties["email"]).lower() for each in inputs if each.properties.get("email")]
        if len(set(emails)) < len(emails) and any(each.objectWriteTraceId is None for each in inputs):
            raise Refusal(400, "VALIDATION_ERROR", "Duplicate unique values within the batch")
        return self._each(inputs, lambda each: self._made(kind, each), lambda each: self._prepared(kind, each), 201)

    async def _update_many(self, kind: str, request: Request) -> Response:
        asked = await _body(request, _Changes)

        def there(each: _Change) -> Row:
            row = self._store.one(kind, each.id, each.idProperty)
            if row is None or row["archived"]:
                raise Refusal(404, "OBJECT_NOT_FOUND", _MISSING.format(kind=kind.rstrip("s").upper()), context={"ids": [each.id]})
            return row

        def change(each: _Change) -> Row | None:
            row = there(each)
            if each.idProperty is None and row["id"] != each.id:
                return None  # merged away: left out of the answer, without an error
            return self._changed(kind, row, each.properties)

        def look(each: _Change) -> None:
            self._changes(kind, there(each), each.properties)

        return self._each(asked.inputs, change, look, 200)

    async def _upsert_many(self, kind: str, request: Request) -> Response:
        asked = await _body(request, _Changes)
        if {each.idProperty for each in asked.inputs} - {_UNIQUE.get(kind)}:
            raise Refusal(400, "VALIDATION_ERROR", f"Unable to perform upsert by non-unique {kind} property")

        def new(each: _Change) -> _New:
            return _New(properties={"email": each.id, **each.properties})

        def upsert(each: _Change) -> Row:
            row = self._store.one(kind, each.id, each.idProperty)
            if row is not None:
                return {**self._changed(kind, row, each.properties), "new": False}
            return {**self._made(kind, new(each)), "new": True}

        def look(each: _Change) -> None:
            row = self._store.one(kind, each.id, each.idProperty)
            if row is not None:
                self._changes(kind, row, each.properties)
            else:
                self._prepared(kind, new(each))

        return self._each(asked.inputs, upsert, look, 200)

    async def _archive_many(self, kind: str, request: Request) -> Response:
        asked = await _body(request, _Objects)
        _at_most(_BATCH, asked.inputs)
        for each in asked.inputs:
            self._store.archive(kind, each.id)
        return Response(status_code=204)

    def _each(self, inputs: Sequence[Any], write: Callable[[Any], Row | None], look: Callable[[Any], Any], done: int) -> Response:
        """Write each input; see the module for what happens when some fail.

        Args:
            look: finds fault without writing, for batches that are refused as a whole.
        """
        _at_most(_BATCH, inputs)
        traces = [each.objectWriteTraceId for each in inputs]
        whole = None in traces
        if not whole and len(set(traces)) < len(traces):
            raise Refusal(400, "VALIDATION_ERROR", "objectWriteTraceId must be unique for each input")
        results, errors, good = [], [], []
        for each in inputs if whole else ():
            try:
                look(each)
                good.append(each)
            except Refusal as refusal:
                if refusal.status != 404:  # what is missing is told, and does not refuse the others
                    raise
                errors.append(refusal.of_record())
        for each in good if whole else inputs:
            try:
                row = write(each)
            except Refusal as refusal:
                errors.append(refusal.of_record(objectWriteTraceId=[each.objectWriteTraceId]))
            else:
                if row is not None:
                    results.append({**row, "objectWriteTraceId": each.objectWriteTraceId} if each.objectWriteTraceId else row)
        # The order of the answer is not the order of the question.
        return batch(self._store.clock.time(), sorted(results, key=lambda row: shuffled(row["id"])), errors, status=done)

    # ---- one record ----

    def _made(self, kind: str, new: _New) -> Row:
        properties, ties = self._prepared(kind, new)
        row = self._store.make(kind, properties)
        for other, to, primary in ties:
            self._link(kind, to, row["id"], other, primary=primary)
        return _shown(kind, self._store.tables[kind].get(row["id"]) or row)

    def _prepared(self, kind: str, new: _New) -> tuple[Row, list[tuple[str, str, bool]]]:
        """Return what a new record would be, and (id, object, primary) of what it would be tied to; or refuse it."""
        properties = checked(kind, new.properties, before=None)
        self._unclaimed(properties.get("email"), "Contact already exists. Existing ID: {id}")
        return properties, [(each.to.id, *self._types(kind, each)) for each in new.associations]

    def _changed(self, kind: str, row: Row, given: Mapping[str, str | StrictBool | None]) -> Row:
        return _shown(kind, self._store.change(kind, row, self._changes(kind, row, given)))

    def _changes(self, kind: str, row: Row, given: Mapping[str, str | StrictBool | None]) -> Row:
        if not given:
            raise Refusal(400, "VALIDATION_ERROR", "No properties found to update, please provide at least one.")
        properties = checked(kind, given, before=row["properties"])
        if (email := properties.get("email")) != row["properties"].get("email"):
            self._unclaimed(email, "A contact with the email '{email}' already exists. Existing ID: {id}", but=row["id"])
        return properties

    def _unclaimed(self, email: str | None, message: str, *, but: str | None = None) -> None:
        holder = self._store.holder(email) if email else None
        if holder is not None and holder["id"] != but:
            context = {"existingId": [holder["id"]]}
            raise Refusal(409, "CONFLICT", message.format(id=holder["id"], email=email), context=context)

    def _types(self, kind: str, each: _Association) -> tuple[str, bool]:
        """Return the object that an association leads to, and whether it is the primary one of its kind."""
        pairs = {pair_of(kind, spec.associationTypeId) for spec in each.types}
        found = pairs.pop() if len(pairs) == 1 else None
        if found is None:
            raise Refusal(400, "VALIDATION_ERROR", f"One or more association types are not valid for {kind}")
        self._there(found[1], each.to.id)
        return found[1], _primary(each.types)

    # ---- associations ----

    @property
    def _links(self) -> Links:
        return self._store.links

    def _there(self, kind: str, id: str) -> None:
        if not self._store.live(kind, id):
            message = f"One or more associations are not valid: {kind.rstrip('s').upper()}={id} is not valid"
            raise Refusal(400, "VALIDATION_ERROR", message, subCategory="crm.associations.INVALID_OBJECT_IDS")

    def _link(self, kind: str, to: str, id: str, other: str, *, primary: bool = False) -> None:
        self._there(kind, id)
        self._there(to, other)
        before = self._links.of(kind, to, id)
        first = primary or ("companies" in {kind, to} and kind != "companies" and not before)
        self._links.add(kind, to, id, other, primary=first)
        self._follow(kind, to, id, other)
        if other not in before or (primary and before[0] != other):
            self._store.hooks.tied(kind, to, id, other, removed=False, primary=first)

    def _unlink(self, kind: str, to: str, id: str, other: str) -> None:
        before = self._links.of(kind, to, id)
        self._links.remove(kind, to, id, other)
        self._follow(kind, to, id, other)
        if other in before:
            self._store.hooks.tied(kind, to, id, other, removed=True, primary=False)

    def _follow(self, kind: str, to: str, id: str, other: str) -> None:
        """Let a contact's `associatedcompanyid` say which company is its primary one."""
        if {kind, to} != {"contacts", "companies"}:
            return
        contact = id if kind == "contacts" else other
        row = self._store.tables["contacts"].get(contact)
        primary = next(iter(self._links.of("contacts", "companies", contact)), None)
        if row is not None and row["properties"].get("associatedcompanyid") != primary:
            self._store.change("contacts", row, {"associatedcompanyid": primary})

    async def _tie_by_default(self, request: Request) -> Response:
        start, to, id, other = _ends(request)
        self._link(start, to, id, other)
        return batch(self._store.clock.time(), default(start, to, id, other))

    async def _tie(self, request: Request) -> Response:
        start, to, id, other = _ends(request)
        self._link(start, to, id, other, primary=self._labelled(start, to, _SPECS.validate_json(await request.body())))
        return json_response(labels(start, to, id, other), status=201)

    async def _untie(self, request: Request) -> Response:
        self._unlink(*_ends(request))
        return Response(status_code=204)

    async def _tie_many_by_default(self, request: Request) -> Response:
        start, to = _pair(request)
        results, errors = self._tied(start, to, await _body(request, _Links), default)
        return batch(self._store.clock.time(), [each for some in results for each in some], errors)

    async def _tie_many(self, request: Request) -> Response:
        start, to = _pair(request)
        results, errors = self._tied(start, to, await _body(request, _Links), labels)
        return batch(self._store.clock.time(), results, errors, status=201)

    async def _untie_many(self, request: Request) -> Response:
        start, to = _pair(request)
        for each in (await _body(request, _Links)).inputs:
            for other in each.to if isinstance(each.to, list) else [each.to]:
                self._unlink(start, to, each.from_.id, other.id)
        return Response(status_code=204)

    def _tied(self, start: str, to: str, asked: _Links, tell: Callable[[str, str, str, str], Any]) -> tuple[list[Any], list[Row]]:
        _at_most(_LINKS, asked.inputs)
        results, errors = [], []
        for each in asked.inputs:
            other = each.to[0] if isinstance(each.to, list) else each.to
            try:
                self._link(start, to, each.from_.id, other.id, primary=self._labelled(start, to, each.types))
                results.append(tell(start, to, each.from_.id, other.id))
            except Refusal as refusal:
                errors.append(refusal.of_record(fromObjectId=[each.from_.id], toObjectId=[other.id]))
        return results, errors

    def _labelled(self, start: str, to: str, types: Sequence[_Spec]) -> bool:
        for spec in types:
            if pair_of(start, spec.associationTypeId) != (start, to):
                raise Refusal(400, "VALIDATION_ERROR", f"Association type {spec.associationTypeId} does not tie {start} to {to}")
        return _primary(types)


def _primary(types: Sequence[_Spec]) -> bool:
    return any(spec.associationTypeId in {1, 5, 26} for spec in types)


def _answering(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def answering(request: Request) -> Response:
        try:
            response: Response = await handler(request)
        except ValidationError as found:
            return invalid(found)
        except Refusal as refusal:
            return refusal.response
        return response

    return answering


async def _body(request: Request, model: type[Body]) -> Body:
    return model.model_validate_json(await request.body())


def _pair(request: Request) -> tuple[str, str]:
    found = pair(request.path_params["from"], request.path_params["to"])
    if found is None:
        raise Refusal(400, "VALIDATION_ERROR", f"Unable to infer object type from: {request.path_params['to']}")
    return found


def _ends(request: Request) -> tuple[str, str, str, str]:
    found = pair(request.path_params["type"], request.path_params["to"])
    if found is None:
        raise Refusal(400, "VALIDATION_ERROR", f"Unable to infer object type from: {request.path_params['to']}")
    return *found, request.path_params["id"], request.path_params["to_id"]


def _at_most(limit: int, inputs: Sequence[object]) -> None:
    if len(inputs) > limit:
        raise Refusal(400, "VALIDATION_ERROR", f"Invalid input JSON: batch size must be at most {limit}, was {len(inputs)}")


def _shown(kind: str, row: Row) -> Row:
    """Return a written record with the default properties and those that were ever given a value."""
    return projected(kind, row, [*DEFAULTS[kind], *(name for name, value in row["properties"].items() if value is not None)])

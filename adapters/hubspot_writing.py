"""Writing to HubSpot: batches of 100, whose answers are told apart by a trace id in each row, and ties as associations.

From the pages on CRM objects, associations v4 and error handling. What these leave open: that an answer echoes the trace id of what
succeeded, where the shape of the official client has it, and that every refusal is told row by row. So a row that no answer names is
found again by its id or address, or stays UNKNOWN; and a batch that is refused as a whole is halved until the culprit stands alone. An archived batch answers nothing about its rows, so what is there is read before.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import orjson

from adapters.base import Api, Outcome, Request, Write, batches, code_in
from adapters.writing import WriteVerb, bisected, failed
from model.errors import DuplicateError, ProtocolError, RejectedError, SourceError
from model.records import Kind, Row

_BATCH, _TIES = 100, 1000
# From a record that is created to what it is tied to: the type of the first one, and of further ones.
_TYPES: Mapping[tuple[Kind, Kind], tuple[int, int]] = {
    ("contact", "account"): (1, 279), ("deal", "account"): (5, 341), ("deal", "contact"): (3, 3), ("ticket", "contact"): (16, 16),
}  # fmt: skip
_NEW_TICKET = "1"
_TAKEN = frozenset({"CONFLICT", "CONFLICTING_UNIQUE_VALUE"})
_CODE, _NAME = re.compile(r"[A-Z][A-Z0-9_]{2,60}"), re.compile(r"[a-z][a-z0-9_]{0,99}")
Pair = tuple[str, str]
Read = Callable[[Api, Kind, Sequence[str], Sequence[str]], Awaitable[Sequence[Row | None]]]


class Writer:
    """
    Args:
        objects, associations: where the two families of paths are.
        names: kind → HubSpot's name for it.
        read: reads live rows by id.
    """

    def __init__(self, objects: str, associations: str, names: Mapping[Kind, str], read: Read) -> None:
        self._objects, self._associations, self._names, self._read = objects, associations, names, read

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """ceil(rows / 100) calls for each verb; one more for each kind that updated rows are tied to, and before a delete."""
        calls: Mapping[WriteVerb, Callable[[Api, Kind, Sequence[Write]], Awaitable[list[Outcome]]]] = {
            "create": self._create, "update": self._update, "upsert": self._upsert, "delete": self._delete,
        }  # fmt: skip
        outcomes: dict[int, Outcome] = {}

        async def part(call: Callable[[Api, Kind, Sequence[Write]], Awaitable[list[Outcome]]], places: Sequence[int]) -> None:
            asked = [writes[at] for at in places]
            outcomes.update(zip(places, await bisected(asked, lambda some: call(api, kind, some)), strict=True))

        await asyncio.gather(*(
            part(call, some)
            for verb, call in calls.items()
            for some in batches([at for at, each in enumerate(writes) if each.verb == verb], _BATCH)
        ))  # fmt: skip
        return [outcomes[at] for at in range(len(writes))]

    async def _create(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        inputs = []
        for each in writes:
            ties = [
                {"to": {"id": id}, "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": _TYPES[kind, other][nth > 0]}]}
                for other, ids in each.links.items()
                for nth, id in enumerate(ids)
            ]  # fmt: skip
            inputs.append({"properties": await self._properties(api, kind, each), "associations": ties})
        return await self._batch(api, kind, "create", writes, inputs)

    async def _update(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """Rows that only tie records have nothing to update; HubSpot refuses a change of no property."""
        said = [await self._properties(api, kind, each) for each in writes]
        changing = [at for at, properties in enumerate(said) if properties]
        inputs = [{"id": writes[at].native_id, "properties": said[at]} for at in changing]
        found = await self._batch(api, kind, "update", [writes[at] for at in changing], inputs) if changing else []
        outcomes = [
            Outcome(state="APPLIED" if any(each.links.values()) else "UNCHANGED", native_id=each.native_id) for each in writes
        ]
        for at, outcome in zip(changing, found, strict=True):
            outcomes[at] = outcome
        return await self._tied(api, kind, writes, outcomes)

    async def _upsert(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        said = [await self._properties(api, kind, each) for each in writes]
        inputs = [{"idProperty": "email", "id": each["email"], "properties": each} for each in said]
        return await self._tied(api, kind, writes, await self._batch(api, kind, "upsert", writes, inputs))

    async def _delete(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """Read before: an archive says nothing of rows that were gone, and by the id of a merged record it would meet the winner."""
        ids = [each.native_id or "" for each in writes]
        there = {id for id, row in zip(ids, await self._read(api, kind, ids, ()), strict=True) if row is not None}
        if there:
            path = f"{self._objects}/{self._names[kind]}/batch/archive"
            body = {"inputs": [{"id": id} for id in ids if id in there]}
            await api.send(Request(operation=f"{kind}.delete", method="POST", path=path, json=body, safe=_repeatable(writes)))
        return [Outcome(state="APPLIED" if id in there else "UNCHANGED", native_id=id) for id in ids]

    async def _batch(
        self, api: Api, kind: Kind, verb: WriteVerb, writes: Sequence[Write], inputs: Sequence[Mapping[str, Any]]
    ) -> list[Outcome]:
        traced = [{**each, "objectWriteTraceId": str(at)} for at, each in enumerate(inputs)]
        path = f"{self._objects}/{self._names[kind]}/batch/{verb}"
        request = Request(operation=f"{kind}.{verb}", method="POST", path=path, json={"inputs": traced}, safe=_repeatable(writes))
        return _told_apart(verb, inputs, (await api.send(request)).json())

    async def _properties(self, api: Api, kind: Kind, write: Write) -> dict[str, str]:
        """Every value as text. A deal's stage names its pipeline too: without it HubSpot takes the default one.

        A ticket is not made without a stage; where none is said it is the first one of the default pipeline.
        """
        said = {name: _text(value) for name, value in write.row.get("properties", {}).items()}
        if kind == "ticket" and write.verb == "create" and "hs_pipeline" not in said:
            said.setdefault("hs_pipeline_stage", _NEW_TICKET)
        if kind == "deal" and said.get("dealstage") and "pipeline" not in said:
            meta = await api.described(kind)
            stage, field = meta.stages.get(said["dealstage"]), meta.fields.get("pipeline")
            pipelines = {label: id for id, label in field.options.items()} if field else {}
            if stage is not None and stage.pipeline in pipelines:
                said["pipeline"] = pipelines[stage.pipeline]
        return said

    async def _tied(self, api: Api, kind: Kind, writes: Sequence[Write], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Tie the rows that were written. One that is not tied is REJECTED, and says if it was written all the same."""
        after = list(outcomes)
        for other in {other for each in writes for other in each.links}:
            wanted = [
                (at, (outcome.native_id or "", id))
                for at, (each, outcome) in enumerate(zip(writes, outcomes, strict=True))
                if outcome.state == "APPLIED"
                for id in each.links.get(other, ())
            ]
            for some in batches(wanted, _TIES):
                faults = await self._tie(api, kind, other, [pair for _, pair in some])
                for at, pair in some:
                    if (error := faults[pair]) is not None:
                        written = "written, but " if writes[at].row.get("properties") else ""
                        told = (
                            RejectedError(f"{written}not tied to its {other}", status=400)
                            if isinstance(error, RejectedError)
                            else error
                        )
                        after[at] = replace(after[at], state="REJECTED", error=told)
        return after

    async def _tie(self, api: Api, kind: Kind, other: Kind, pairs: Sequence[Pair]) -> dict[Pair, SourceError | None]:
        """Add default associations, which may be done twice; return what is wrong with each, None where it stands."""
        path = f"{self._associations}/{self._names[kind]}/{self._names[other]}/batch/associate/default"
        body = {"inputs": [{"from": {"id": one}, "to": {"id": two}} for one, two in pairs]}
        try:
            answer = (await api.send(Request(operation=f"{kind}.{other}.tie", method="POST", path=path, json=body))).json()
        except SourceError as error:
            return dict.fromkeys(pairs, error)
        done = {(str(each["from"]["id"]), str(each["to"]["id"])) for each in answer["results"]}
        refused = RejectedError("refused", status=400)
        return {pair: None if pair in done else refused for pair in pairs}


def refusal(said: Mapping[str, Any], status: int | None) -> RejectedError:
    """Return what HubSpot's error says, by its codes only: its messages quote the values that were sent."""
    category = code_in(said.get("category") or said.get("status"))
    codes = [code for each in _details(said) if _CODE.fullmatch(code := str(each.get("code") or each.get("error") or ""))]
    facts: dict[str, Any] = {
        "status": 404 if category == "OBJECT_NOT_FOUND" else status,
        "upstream_code": next(iter(codes), category) or None,
    }
    if _TAKEN & {category, *codes}:
        return DuplicateError("another record has this key", **facts)
    named = ", ".join(dict.fromkeys([category, *codes])) if category else f"with {status}"
    return RejectedError(f"refused: {named}" if category else f"refused {named}", **facts)


def _told_apart(verb: WriteVerb, inputs: Sequence[Mapping[str, Any]], answer: Row) -> list[Outcome]:
    """Return each row's outcome, by the trace id it was sent with, else by its id or its address."""
    places = {str(at): at for at in range(len(inputs))}
    keys = {_key(each): at for at, each in enumerate(inputs)}
    outcomes: dict[int, Outcome] = {}
    for row in answer["results"]:
        found = places.get(row.get("objectWriteTraceId") or "")
        for key in (row["id"], str((row.get("properties") or {}).get("email") or "")):
            found = keys.get(key) if found is None and key else found
        if found is not None:
            outcomes[found] = Outcome(state="APPLIED", native_id=row["id"], created=row.get("new"))
    for error in answer.get("errors") or ():
        context = error.get("context") or {}
        traced = [places.get(trace) for trace in context.get("objectWriteTraceId") or ()]
        for at in traced or [keys.get(id) for id in context.get("ids") or ()]:
            if at is not None:
                outcomes[at] = replace(failed(refusal(error, 400)), fields=_fields(error))
    if verb == "update":  # what was merged away is left out, without an error
        silent = failed(RejectedError("the record is gone", status=404))
    else:
        silent = failed(ProtocolError("the answer does not name the record"))
    return [outcomes.get(at, silent) for at in range(len(inputs))]


def _key(given: Mapping[str, Any]) -> str:
    """Return what an answer's row has in common with the row that was sent: an id, or an e-mail address in lower case."""
    return str(given.get("id") or given["properties"].get("email") or "").lower()


def _details(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what is said of each property: in `errors`, or as JSON within the message."""
    text = str(said.get("message") or "").partition("Property values were not valid: ")[2]
    try:
        quoted = orjson.loads(text) if text else []
    except orjson.JSONDecodeError:
        quoted = []
    told = [each for part in (said.get("errors"), quoted) if isinstance(part, list) for each in part]
    return [each for each in told if isinstance(each, Mapping)]


def _fields(said: Mapping[str, Any]) -> tuple[str, ...]:
    names: list[str] = []
    for each in _details(said):
        context = each.get("context") or {}
        names += [*(context.get("propertyName") or ()), *(context.get("properties") or ()), each.get("name") or ""]
    return tuple(dict.fromkeys(f"properties.{name}" for name in names if _NAME.fullmatch(str(name))))


def _repeatable(writes: Sequence[Write]) -> bool:
    return all(each.repeatable for each in writes)


def _text(value: Any) -> str:
    """HubSpot keeps every value as text; an empty one clears."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ";".join(_text(each) for each in value)
    return value.isoformat() if isinstance(value, date) else str(value)

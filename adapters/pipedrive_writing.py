"""How a Pipedrive record is created, changed and deleted: there is no batch and no upsert, and nothing compares versions."""

from collections.abc import Sequence
from dataclasses import replace

from adapters.base import Api, Outcome, Write
from adapters.pipedrive_calls import listed, one_or_none, request
from adapters.pipedrive_fields import CUSTOM, asked, custom_values, stage_body, with_primary
from adapters.writing import failed, settled_one
from model.errors import RejectedError, SourceError
from model.records import Kind, Row

_NUMBERS = ("owner_id", "org_id", "person_id")  # v2 refuses a number in quotes
_PATHS: dict[Kind, str] = {"contact": "/api/v2/persons", "account": "/api/v2/organizations", "deal": "/api/v2/deals"}


class FieldRejectedError(RejectedError):
    """
    Attributes:
        field: key of the custom field that was at fault.
    """

    field = ""


async def write_one(api: Api, kind: Kind, write: Write, *, currency: str) -> Outcome:
    """Write one record.

    Args:
        currency: of an amount in a custom field that names none and had none.
    """
    outcome = await settled_one(write, lambda _: _written(api, kind, write, currency))
    field = outcome.error.field if isinstance(outcome.error, FieldRejectedError) else ""
    return replace(outcome, fields=[f"{CUSTOM}{field}"]) if field else outcome


async def _written(api: Api, kind: Kind, write: Write, currency: str) -> Outcome:
    path = _PATHS[kind]
    if write.verb == "create":
        body, others = await _body(api, kind, write, {}, currency)
        answer = await api.send(request(f"{kind}.create", path, cost=5, method="POST", body=body, safe=False))
        return await _tied(api, str(answer.json()["data"]["id"]), others, known=set())
    assert write.native_id is not None
    path = f"{path}/{write.native_id}"
    if write.verb == "delete":
        try:
            await api.send(request(f"{kind}.delete", path, cost=3, method="DELETE"))
        except RejectedError as error:
            if error.status != 404:
                raise
            return Outcome(state="UNCHANGED", native_id=write.native_id)
        return Outcome(state="APPLIED", native_id=write.native_id)
    before = await _before(api, path, kind, write)
    body, others = await _body(api, kind, write, before, currency)
    if body:
        await api.send(request(f"{kind}.update", path, cost=5, method="PATCH", body=body, safe=write.repeatable))
    return await _tied(api, write.native_id, others, known=None)


async def _before(api: Api, path: str, kind: Kind, write: Write) -> Row:
    """Return what the record is now, where the write says only a part of something that Pipedrive takes whole."""
    parts = {"first_name", "last_name", "emails", "phones"} & write.row.keys()
    objects = any(isinstance(each, dict) for each in write.row.get("custom_fields", {}).values())
    if not parts and not objects and not write.links.get("contact"):
        return {}
    rows = await one_or_none(api, request(f"{kind}.read", path, cost=1))
    if not rows or rows[0].get("is_deleted"):
        raise RejectedError("there is no such record", status=404)
    return rows[0]


async def _body(api: Api, kind: Kind, write: Write, before: Row, currency: str) -> tuple[Row, list[int]]:
    """Return what is sent, and the persons that take part in the deal beside its first."""
    body: Row = dict(write.row)
    if kind == "contact":
        names: Row = {name: body.pop(name) for name in ("first_name", "last_name") if name in body}
        if names and "name" not in body:
            whole: Row = {**before, **names}
            body["name"] = " ".join(part for part in (whole.get("first_name"), whole.get("last_name")) if part)
        for name in {"emails", "phones"} & body.keys():
            body[name] = with_primary(before.get(name) or [], body[name][0]["value"])
    if (stage := body.pop("stage", None)) is not None:
        body |= stage_body(stage)
    persons = [int(id) for id in write.links.get("contact", ())]
    if persons and before.get("person_id") is None:
        body["person_id"] = persons[0]
    for name in _NUMBERS:
        if isinstance(body.get(name), str):
            body[name] = int(body[name])
    if "custom_fields" in body:
        body["custom_fields"] = custom_values(
            body["custom_fields"], before.get("custom_fields") or {}, await api.described(kind), currency
        )
    return body, [id for id in persons if id not in {body.get("person_id"), before.get("person_id")}]


async def _tied(api: Api, deal: str, persons: Sequence[int], *, known: set[int] | None) -> Outcome:
    """Let persons take part in a deal. The deal itself is written: a failure here leaves it so, and its outcome open.

    Args:
        known: who takes part already; None when that is to be asked.
    """
    created = True if known is not None else None
    try:
        if persons and known is None:
            parameters = {"deal_id": deal, **asked((), await api.described("contact"))}
            known = {row["id"] for row in await listed(api, "deal.contact", _PATHS["contact"], parameters)}
        for person in persons:
            if person not in (known or ()):
                path = f"/api/v1/deals/{deal}/participants"
                await api.send(request("deal.tie", path, cost=10, method="POST", body={"person_id": person}, safe=False))
    except SourceError as error:
        return replace(failed(error), state="UNKNOWN", native_id=deal, created=created)
    return Outcome(state="APPLIED", native_id=deal, created=created)

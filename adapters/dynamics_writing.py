"""What is written to Dataverse: rows become bodies, lookups references, and the end of a deal the action that the vendor wants.

Many records go in one `$batch` that goes on after errors, not in CreateMultiple or UpdateMultiple: those do all rows or none, and do
not say which one was at fault.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import uuid4

from adapters.base import Api, Outcome, Request, Response, Write, batches
from adapters.dynamics_batch import Operation, answers, composed
from adapters.dynamics_metadata import COST, CURRENCY, HEADERS
from adapters.dynamics_rows import is_guid
from adapters.writing import failed, settled
from model.errors import ProtocolError, RejectedError, SourceError
from model.records import Kind, ObjectType, Row

BATCH = 50  # operations: a batch may hold 1,000, and must be done within two minutes
_BINDS: Mapping[str, tuple[str, str]] = {  # lookup → (navigation property, set)
    "_ownerid_value": ("ownerid", "systemusers"), "_parentaccountid_value": ("parentaccountid", "accounts"),
    "_parentcontactid_value": ("parentcontactid", "contacts"),
}  # fmt: skip
_NESTED: Mapping[str, str] = {"parentcustomerid_account": "accounts"}  # navigation property → set
_CLOSING: Mapping[str, str] = {"WON": "WinOpportunity", "LOST": "LoseOpportunity"}
_MADE = re.compile(r"\(([0-9a-fA-F-]{36})\)\s*$")

Classify = Callable[[Response], SourceError | None]


async def written(
    api: Api, root: str, kind: Kind, name: str, writes: Sequence[Write], meta: ObjectType, classify: Classify
) -> list[Outcome]:
    """Return one outcome each, in order.

    Args:
        name: of the entity set.
        classify: tells what went wrong with one operation of a batch.
    """
    asked: list[list[Operation] | Outcome] = [_operations(root, kind, name, each, meta) for each in writes]
    sent = [(at, each) for at, each in enumerate(asked) if not isinstance(each, Outcome)]
    done: dict[int, Outcome] = {}
    for some in batches(sent, BATCH):  # one after another: large batches at once are what the limit on execution time is for
        call = partial(_sent, api, root, kind, [group for _, group in some], classify)
        outcomes = await settled([writes[at] for at, _ in some], call)
        done |= {at: outcome for (at, _), outcome in zip(some, outcomes, strict=True)}
    return [each if isinstance(each, Outcome) else done[at] for at, each in enumerate(asked)]


async def _sent(
    api: Api, root: str, kind: Kind, groups: Sequence[Sequence[Operation]], classify: Classify, writes: Sequence[Write]
) -> list[Outcome]:
    # A deal that is won cannot be won again, so that call is never repeated on a guess.
    safe = all(each.repeatable for each in writes) and all(operation.method != "POST" for group in groups for operation in group)
    cost = {name: seconds * len(groups) for name, seconds in COST.items()}
    if len(groups) == 1 and len(groups[0]) == 1:
        [[one]] = groups
        request = Request(
            operation=f"{kind}.{writes[0].verb}", method=one.method, path=one.path, json=one.json, headers={**HEADERS, **one.headers}, cost=cost, safe=safe,
        )  # fmt: skip
        try:
            return [_outcome(writes[0], groups[0], await api.send(request))]
        except RejectedError as error:
            return [_refused(writes[0], error)]
    media_type, body = composed(groups)
    headers = {**HEADERS, "Content-Type": media_type, "Prefer": "odata.continue-on-error"}
    request = Request(
        operation=f"{kind}.batch", method="POST", path=f"{root}/$batch", body=body, headers=headers, cost=cost, safe=safe
    )
    found = answers(await api.send(request), len(groups))
    outcomes = []
    for write, group, answer in zip(writes, groups, found, strict=True):
        fault = classify(answer)
        outcomes.append(_refused(write, fault) if fault is not None else _outcome(write, group, answer))
    return outcomes


def _refused(write: Write, error: SourceError) -> Outcome:
    if write.verb == "delete" and error.status == 404:
        return Outcome(state="UNCHANGED", native_id=write.native_id)
    return replace(failed(error), native_id=write.native_id)


def _outcome(write: Write, group: Sequence[Operation], answer: Response) -> Outcome:
    if write.native_id is not None:
        return Outcome(state="APPLIED", native_id=write.native_id)
    made = _MADE.search(answer.headers.get("odata-entityid", ""))
    if made is None:
        raise ProtocolError("made a record and did not name it", status=answer.status)
    return Outcome(state="APPLIED", native_id=made[1].lower(), created=True)


def _operations(root: str, kind: Kind, name: str, write: Write, meta: ObjectType) -> list[Operation] | Outcome:
    """Return what one write takes, or why it is not sent."""
    if write.native_id is not None and not is_guid(write.native_id):
        return _refused(write, RejectedError("there is no such record", status=404))
    where = f"{root}/{name}({write.native_id})" if write.native_id is not None else f"{root}/{name}"
    # Without If-Match a PATCH of what is not there would make it.
    match = {"If-Match": write.if_version or "*"}
    if write.verb == "delete":
        return [Operation(method="DELETE", path=where, headers=match if write.if_version else {})]
    row = dict(write.row)
    closing = _closing(row, meta) if kind == "deal" else None
    try:
        body = _body(row, meta)
    except _Unfit as fault:
        return Outcome(state="REJECTED", native_id=write.native_id, error=RejectedError(fault.why), fields=(fault.path,))
    if kind == "deal" and "statuscode" in body:
        body["statecode"] = 0  # a closed deal that goes back to an open status is opened
    if write.verb == "create":
        if closing is None:
            return [Operation(method="POST", path=where, json=body)]
        id = str(uuid4())  # the action must name the deal that is made beside it
        end = _close(root, *closing, f"/{name}({id})")
        return [Operation(method="POST", path=where, json={**body, meta.id_path: id}), end]
    if closing is None:
        return [Operation(method="PATCH", path=where, json=body, headers=match)]
    end = _close(root, *closing, f"/{name}({write.native_id})")
    if not body and write.if_version is not None:
        # An action compares no versions: only a change of the row in the same change set does.
        why = "the system cannot compare versions where a deal is closed and nothing else is changed"
        return Outcome(state="REJECTED", native_id=write.native_id, error=RejectedError(why), fields=("statuscode",))
    return [Operation(method="PATCH", path=where, json=body, headers=match), end] if body else [end]


def _closing(row: Row, meta: ObjectType) -> tuple[str, int] | None:
    """Take a status that ends a deal out of its row; return the action that sets it, and the status."""
    stage = meta.stages.get(str(row.get("statuscode")))
    if stage is None or stage.category not in _CLOSING:
        return None
    del row["statuscode"]
    return _CLOSING[stage.category], int(stage.native)


def _close(root: str, action: str, status: int, deal: str) -> Operation:
    json = {
        "Status": status,
        "OpportunityClose": {"subject": action.removesuffix("Opportunity"), "opportunityid@odata.bind": deal},
    }
    return Operation(method="POST", path=f"{root}/{action}", json=json)


class _Unfit(Exception):
    def __init__(self, why: str, path: str) -> None:
        self.why, self.path = why, path


def _body(row: Mapping[str, Any], meta: ObjectType) -> Row:
    body: Row = {}
    for name, value in row.items():
        if name in _BINDS:
            navigation, target = _BINDS[name]
            body[f"{navigation}@odata.bind"] = _reference(target, value, name)
        elif name in _NESTED:
            [(column, id)] = value.items()
            body[f"{name}@odata.bind"] = _reference(_NESTED[name], id, f"{name}.{column}")
        elif name == CURRENCY:
            body[f"{CURRENCY}@odata.bind"] = _reference("transactioncurrencies", _currency(value, meta), CURRENCY)
        else:
            body[name] = _spelled(name, value, meta)
    if "estimatedvalue" in body:
        body["isrevenuesystemcalculated"] = False  # else what is given is worked over by the sum of its products
    return body


def _reference(target: str, id: Any, path: str) -> str | None:
    if id is not None and not is_guid(id):
        raise _Unfit("there is no such record", path)
    return None if id is None else f"/{target}({id})"


def _currency(value: Mapping[str, Any], meta: ObjectType) -> str:
    code = str(value["isocurrencycode"]).upper()
    options = meta.fields[CURRENCY].options if CURRENCY in meta.fields else {}
    found = next((id for id, each in options.items() if each.upper() == code), None)
    if found is None:
        raise _Unfit("the environment has no such currency", f"{CURRENCY}.isocurrencycode")
    return found


def _spelled(name: str, value: Any, meta: ObjectType) -> Any:
    """Return a value as the column takes it: options as numbers, several of them as "1,3"."""
    field = meta.fields.get(name)
    if value is None or field is None:
        return value
    if field.type == "MULTI_PICKLIST":
        return ",".join(str(each) for each in (value if isinstance(value, list) else [value])) or None
    if field.type != "PICKLIST":
        return value
    by_label = {label.casefold(): option for option, label in field.options.items()}
    option = str(value) if str(value) in field.options else by_label.get(str(value).casefold())
    if option is None:
        raise _Unfit("the column has no such option", name)
    return int(option)

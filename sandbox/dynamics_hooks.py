"""Dataverse's webhooks: what its event pipeline posts to the service endpoints that processing steps name.

After "Use webhooks to create external handlers" and "Register a webhook". Steps are asynchronous: the body is the `RemoteExecutionContext`,
only with changed columns for an update; above 256 KB the parameters go and a header says so; 60 seconds to answer; what fails is not sent
again, but for 502, 503 and 504, once. Decided here, since no document says: that one more try comes after a minute; a merge is one
`Merge` message, with the loser as `SubordinateId`, and no update of the loser; a change set tells once it is committed, of each row once;
an update that changes no column tells nothing. Not there: synchronous steps, headers and query strings as proof, images, Service Bus.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

import orjson

from sandbox.dynamics_messages import MESSAGES, guid
from sandbox.dynamics_store import Store, millis
from sandbox.dynamics_tables import SCHEMAS, Column, Schema
from sandbox.table import Row
from sandbox.webhooks import Made, Outbox, Sending

WEBHOOK, KEY = 8, 4  # contract; authorization type
_MOST = 256 * 1024
_AGAIN = frozenset({502, 503, 504})
_TIMEOUT, _PAUSE = 60.0, 60.0
_PARAMETERS = ("ParentContext", "InputParameters", "PreEntityImages", "PostEntityImages")
_UNTOLD = frozenset({"modifiedon", "versionnumber", "createdon"})
_CONTRACTS = "http://schemas.microsoft.com/xrm/2011/Contracts"


class Pipeline:
    """
    Args:
        organization: id and unique name.
    """

    outbox: Outbox

    def __init__(self, store: Store, organization: tuple[str, str]) -> None:
        self._store = store
        self._organization = organization
        self._held: list[tuple[str, str, Row | None, Row | None]] = []
        store.committed = self._release

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {
                "id": step["sdkmessageprocessingstepid"], "url": endpoint["url"], "active": step["statecode"] == 0,
                "message": MESSAGES[self._message(step)], "table": self._table(step),
            }
            for step, endpoint in self._steps()
        ]  # fmt: skip

    def changed(self, table: str, id: str, before: Row | None, after: Row | None) -> None:
        if self._store.undecided:
            self._held.append((table, id, before, after))
        else:
            self._tell(table, id, before, after)

    def _release(self) -> None:
        held, self._held = self._held, []
        whole: dict[tuple[str, str], tuple[Row | None, Row | None]] = {}
        for table, id, before, after in held:
            whole[table, id] = (whole[table, id][0] if (table, id) in whole else before, after)
        for (table, id), (before, after) in whole.items():
            self._tell(table, id, before, after)

    def _tell(self, table: str, id: str, before: Row | None, after: Row | None) -> None:
        schema = SCHEMAS[table]
        changed = {
            name: value for name, value in (after or {}).items() if name not in _UNTOLD and value != (before or {}).get(name)
        }
        if (before is None and after is None) or (before is not None and after is not None and not changed):
            return
        merged = after is not None and after.get("merged") and not (before or {}).get("merged")
        message = "Create" if before is None else "Delete" if after is None else "Merge" if merged else "Update"
        context = self._context(schema, id, message, changed, after)
        for step, endpoint in self._steps():
            if step["statecode"] == 0 and MESSAGES[self._message(step)] == message and self._table(step) == table:
                self._send(step, endpoint, {**context, "OperationId": str(uuid4())})

    def _steps(self) -> Iterator[tuple[Row, Row]]:
        for step in self._store.tables["sdkmessageprocessingstep"]:
            endpoint = self._store.get("serviceendpoint", str(step["_eventhandler_value"]))
            if endpoint is not None and endpoint["contract"] == WEBHOOK:
                yield step, endpoint

    def _message(self, step: Row) -> int:
        return next(nth for nth in range(len(MESSAGES)) if guid("message", nth + 1) == step["_sdkmessageid_value"])

    def _table(self, step: Row) -> str | None:
        held = self._store.get("sdkmessagefilter", str(step["_sdkmessagefilterid_value"]))
        return held["primaryobjecttypecode"] if held else None

    def _send(self, step: Row, endpoint: Row, context: Row, *, again: bool = False) -> None:
        raw, more = orjson.dumps(context), {}
        if len(raw) > _MOST:
            raw = orjson.dumps({name: value for name, value in context.items() if name not in _PARAMETERS})
            more = {"x-ms-dynamics-msg-size-exceeded": "true"}
        headers = {
            "content-type": "application/json", "x-ms-dynamics-organization": "org.crm.dynamics.com", "x-ms-dynamics-entity-name": context["PrimaryEntityName"],
            "x-ms-dynamics-request-name": context["MessageName"], "x-ms-correlation-request-id": context["CorrelationId"], **more,
        }  # fmt: skip
        url = str(endpoint["url"])
        if endpoint.get("authtype") == KEY:
            url += f"{'&' if '?' in url else '?'}code={endpoint.get('authvalue') or ''}"

        def answered(status: int | None) -> None:
            if status in _AGAIN and not again:
                self._send(step, endpoint, context, again=True)

        self.outbox.post(
            Sending(
                hook=step["sdkmessageprocessingstepid"], url=url, key=context["OperationId"], make=partial(_made, headers, raw), timeout=_TIMEOUT, answered=answered,
            ),
            after=_PAUSE if again else 0.0,
        )  # fmt: skip

    def _context(self, schema: Schema, id: str, message: str, changed: Row, after: Row | None) -> Row:
        now, user = self._store.now(), guid("systemuser", 1)
        target: Row = _reference(schema.logical, id)
        parameters: list[Row]
        primary = id
        if message == "Merge":
            primary = str((after or {})["_masterid_value"])
            parameters = [_pair("Target", _reference(schema.logical, primary)), _pair("SubordinateId", id)]
        elif message == "Delete":
            parameters = [_pair("Target", target)]
        else:
            stamps = {name: (after or {}).get(name) for name in ("modifiedon", *(("createdon",) if message == "Create" else ()))}
            attributes = [
                each
                for name, value in {**changed, **stamps}.items()
                if (each := self._attribute(schema, name, value, after)) is not None
            ]
            parameters = [
                _pair(
                    "Target",
                    {
                        "__type": f"Entity:{_CONTRACTS}",
                        "Attributes": attributes,
                        "EntityState": None,
                        "FormattedValues": [],
                        "Id": id,
                        "KeyAttributes": [],
                        "LogicalName": schema.logical,
                        "RelatedEntities": [],
                        "RowVersion": None,
                    },
                )
            ]
        return {
            "BusinessUnitId": guid("unit", 1), "CorrelationId": str(uuid4()), "Depth": 1, "InitiatingUserId": user, "InputParameters": parameters, "IsExecutingOffline": False,
            "IsInTransaction": False, "IsOfflinePlayback": False, "IsolationMode": 1, "MessageName": message, "Mode": 1, "OperationCreatedOn": _date(now),
            "OrganizationId": self._organization[0], "OrganizationName": self._organization[1], "OutputParameters": [_pair("id", id)] if message == "Create" else [],
            "ParentContext": None, "PostEntityImages": [], "PreEntityImages": [], "PrimaryEntityId": primary, "PrimaryEntityName": schema.logical, "RequestId": str(uuid4()),
            "SecondaryEntityName": "none", "SharedVariables": [], "Stage": 40, "UserId": user,
        }  # fmt: skip

    def _attribute(self, schema: Schema, stored: str, value: Any, row: Row | None) -> Row | None:
        """Return a column as the pipeline has it, None for what it has not."""
        name = stored[1:].removesuffix("_value") if stored.startswith("_") else stored
        column = schema.columns.get(name)
        if column is None or column.virtual:
            return None
        return _pair(name, None if value is None else self._typed(schema, name, column, value, row or {}))

    def _typed(self, schema: Schema, name: str, column: Column, value: Any, row: Row) -> Any:
        match column.type:
            case "lookup":
                return _reference(self._store.target(schema, name, row) or next(iter(column.targets)), value)
            case "option" | "state" | "status":
                return {"__type": f"OptionSetValue:{_CONTRACTS}", "Value": value}
            case "money":
                return {"__type": f"Money:{_CONTRACTS}", "Value": value}
            case "datetime":
                return _date(millis(value))
        return value


def _made(headers: Mapping[str, str], raw: bytes, _: int) -> Made:
    return headers, raw


def _pair(key: str, value: Any) -> Row:
    return {"key": key, "value": value}


def _reference(table: str, id: str) -> Row:
    return {
        "__type": f"EntityReference:{_CONTRACTS}",
        "Id": id,
        "KeyAttributes": [],
        "LogicalName": table,
        "Name": None,
        "RowVersion": None,
    }


def _date(moment: float) -> str:
    return f"/Date({int(moment)}+0000)/"

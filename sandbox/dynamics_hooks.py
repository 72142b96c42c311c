"""Dataverse's webhooks: what a step sends for its message, as RemoteExecutionContext.

After "Use webhooks to create external handlers for server events" and "Register a webhook". Only asynchronous steps at the end of
an operation, with a key in the address. What is not taken is not sent again (the vendor repeats a few 5xx once; here it does not, which
is worse). Decided here, since no document says: a merge sends one Merge and no Update; a deal that is closed sends an Update. What a
change set takes back is not told. The key of an endpoint can be read here, which the vendor does not allow.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import orjson

from sandbox.dynamics_store import Store, guid, millis
from sandbox.dynamics_tables import SCHEMAS, Schema
from sandbox.table import Row
from sandbox.webhooks import Made, Outbox, Sending

_MOST = 256 * 1024
_CONTRACTS = "http:\\/\\/schemas.microsoft.com\\/xrm\\/2011\\/Contracts"
_UNTOLD = frozenset({"versionnumber", "modifiedon"})
_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_PORTS = frozenset({None, 80, 443})
_CUT = ("ParentContext", "InputParameters", "PreEntityImages", "PostEntityImages")


class Hooks:
    def __init__(self, store: Store, outbox: Callable[[], Outbox], *, organization: str) -> None:
        self._store, self._outbox, self._organization = store, outbox, organization
        self._held: list[tuple[str, Schema, str, Row]] | None = None
        self._quiet = False

    def register(self, url: str, secret: str) -> None:
        """Enter an endpoint and all its steps, as the plug-in registration tool does."""
        schema, steps = SCHEMAS["serviceendpoint"], SCHEMAS["sdkmessageprocessingstep"]
        endpoint = str(uuid4())
        facts = {
            "name": "Customer360",
            "description": None,
            "url": url,
            "contract": 8,
            "authtype": 4,
            "authvalue": secret,
            "messageformat": 2,
        }
        self._store.put(schema, {schema.id: endpoint, **facts})
        for row in self._store.tables["sdkmessagefilter"]:
            name = self._name(row["_sdkmessageid_value"])
            if name in {"Create", "Update", "Delete", "Merge"} and row["primaryobjecttypecode"] != "systemuser":
                step = {
                    "name": f"{name} of {row['primaryobjecttypecode']}", "statecode": 0, "statuscode": 1, "mode": 1, "stage": 40, "rank": 1,
                    "_eventhandler_value": endpoint, "_sdkmessageid_value": row["_sdkmessageid_value"], "_sdkmessagefilterid_value": row["sdkmessagefilterid"],
                    "filteringattributes": None, "description": None, "supporteddeployment": 0, "asyncautodelete": True,
                }  # fmt: skip
                self._store.put(steps, {steps.id: str(uuid4()), **step})

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {"id": step["sdkmessageprocessingstepid"], "url": endpoint["url"], "active": step["statecode"] == 0, "message": message, "table": table}
            for step, endpoint, message, table in self._steps()
        ]  # fmt: skip

    @contextmanager
    def held(self) -> Iterator[list[tuple[str, Schema, str, Row]]]:
        """Hold back what is to be sent until the end; what is taken out of the list is not sent."""
        held: list[tuple[str, Schema, str, Row]] = []
        self._held = held
        try:
            yield held
        finally:
            self._held = None
        for each in held:
            self._tell(*each)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Tell nothing of what changes meanwhile."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False

    def changed(self, logical: str, id: str, before: Row | None, after: Row | None) -> None:
        schema = SCHEMAS[logical]
        if self._quiet:
            return
        if after is None:
            self.tell("Delete", schema, id, {"Target": _reference(logical, id)})
            return
        values = {name: value for name, value in after.items() if before is None or before.get(name) != value}
        if before is not None and not values.keys() - _UNTOLD:
            return
        values = {name: value for name, value in values.items() if value is not None or before is not None}
        target = {
            "__type": f"Entity:{_CONTRACTS}",
            "LogicalName": logical,
            "Id": id,
            "Attributes": self._attributes(schema, after, values),
        }
        self.tell("Create" if before is None else "Update", schema, id, {"Target": target})

    def tell(self, message: str, schema: Schema, id: str, parameters: Row) -> None:
        if self._held is not None:
            self._held.append((message, schema, id, parameters))
        else:
            self._tell(message, schema, id, parameters)

    def _tell(self, message: str, schema: Schema, id: str, parameters: Row) -> None:
        correlation, now = str(uuid4()), int(self._store.now())
        for step, endpoint, name, table in self._steps():
            if (
                (name, table) != (message, schema.logical)
                or step["statecode"] != 0
                or step["mode"] != 1
                or not _reachable(endpoint["url"])
            ):
                continue
            body = {
                "MessageName": message, "PrimaryEntityName": table, "PrimaryEntityId": id, "Stage": 40, "Mode": 1, "Depth": 1, "OrganizationName": self._organization,
                "OperationCreatedOn": f"\\/Date({now}+0000)\\/", "InitiatingUserId": str(guid("systemuser", 1)), "UserId": str(guid("systemuser", 1)),
                "CorrelationId": correlation, "OperationId": str(uuid4()), "InputParameters": [{"key": key, "value": value} for key, value in parameters.items()],
                "PostEntityImages": [], "PreEntityImages": [], "ParentContext": None,
            }  # fmt: skip
            headers = {
                "Content-Type": "application/json", "x-ms-dynamics-organization": f"{self._organization}.crm.dynamics.com", "x-ms-dynamics-entity-name": table,
                "x-ms-dynamics-request-name": message, "x-ms-correlation-request-id": correlation,
            }  # fmt: skip
            raw = _written(body)
            if len(raw) > _MOST:
                raw, headers = (
                    _written({name: value for name, value in body.items() if name not in _CUT}),
                    {**headers, "x-ms-dynamics-msg-size-exceeded": "true"},
                )
            made: Made = (headers, raw)
            url = f"{endpoint['url']}{'&' if '?' in endpoint['url'] else '?'}code={quote(endpoint['authvalue'] or '')}"
            sending = Sending(
                hook=step["sdkmessageprocessingstepid"],
                url=url,
                key=str(body["OperationId"]),
                make=partial(_same, made),
                timeout=60.0,
            )
            self._outbox().post(sending)

    def _steps(self) -> Iterator[tuple[Row, Row, str, str]]:
        """Walk the steps with a webhook: the step, its endpoint, its message and its table."""
        for step in self._store.tables["sdkmessageprocessingstep"]:
            endpoint = self._store.get("serviceendpoint", step["_eventhandler_value"] or "")
            chosen = self._store.get("sdkmessagefilter", step["_sdkmessagefilterid_value"] or "")
            if endpoint is not None and endpoint["contract"] == 8 and chosen is not None:
                yield step, endpoint, self._name(step["_sdkmessageid_value"]), chosen["primaryobjecttypecode"]

    def _name(self, message: str) -> str:
        return str((self._store.get("sdkmessage", message) or {}).get("name"))

    def _attributes(self, schema: Schema, row: Row, values: Row) -> list[Row]:
        found = []
        for name, column in schema.columns.items():
            stored = schema.stored(name)
            if stored not in values or column.virtual:
                continue
            value = values[stored]
            if value is not None and column.type == "lookup" and (table := self._store.target(schema, name, row)) is not None:
                value = _reference(table, value)
            elif value is not None and column.type in {"option", "state", "status"}:
                value = {"__type": f"OptionSetValue:{_CONTRACTS}", "Value": value}
            elif value is not None and column.type == "datetime":
                value = f"\\/Date({millis(value)})\\/"
            found.append({"key": name, "value": value})
        return found


def _same(made: Made, _: int) -> Made:
    return made


def _reference(table: str, id: str) -> Row:
    return {"__type": f"EntityReference:{_CONTRACTS}", "Id": id, "LogicalName": table, "Name": None, "RowVersion": None}


def _written(body: Row) -> bytes:
    """Write slashes of dates and types as the vendor does."""
    return orjson.dumps(body).replace(b"\\\\/", b"\\/")


def _reachable(url: str) -> bool:
    """The vendor calls ports 80 and 443 only; loopback is for tests."""
    address = urlsplit(url)
    return address.hostname in _LOCAL or (address.scheme in {"http", "https"} and address.port in _PORTS)

"""Web logic hooks: the module that holds them, and what cron sends for them.

From the Developer Guide and the module's published fields: a change puts a job into the queue, and the queue is worked off when cron runs, each minute.
Nothing is signed, ten seconds are waited for an answer (one in older releases), and a job whose call failed counts as done. Jobs of one run come in
no order.
"""

import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request

from sandbox import sugarcrm_filter as filters
from sandbox.dialect import Endpoint, Handler
from sandbox.sugarcrm_asked import json_body, whole
from sandbox.sugarcrm_records import Refusal, moment
from sandbox.table import Row
from sandbox.webhooks import Outbox, Sending

EVENTS = frozenset({
    "after_save", "after_delete", "after_relationship_add", "after_relationship_delete", "after_login", "after_logout", "after_login_failed",
})  # fmt: skip
_METHODS = frozenset({"POST", "GET", "PUT", "DELETE"})
_FIELDS = ("name", "webhook_target_module", "request_method", "url", "trigger_event")
_BEANS = {"Contacts": "Contact", "Accounts": "Account", "Opportunities": "Opportunity", "Leads": "Lead"}
_CRON, _TIMEOUT, _URL = 60.0, 10.0, 255  # seconds, seconds, characters
_OWN = frozenset({"date_modified", "modified_user_id"})  # set by saving, so nothing that was changed


@dataclass(slots=True)
class Hooks:
    """
    Args:
        clock: seconds since 1970.
        shown: (module, row) → the row as the API answers it.

    Attributes:
        outbox: None until someone listens to the instance.
    """

    clock: Callable[[], float]
    shown: Callable[[str, Row], Row]
    outbox: Outbox | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    _rng: random.Random = field(default_factory=lambda: random.Random("cron"))

    # ---- the module ----

    def create(self, said: Mapping[str, Any]) -> Row:
        now, id = moment(self.clock() * 1000), str(uuid.uuid4())
        blank = {**dict.fromkeys(_FIELDS, ""), "request_method": "POST"}
        self.rows[id] = {
            **blank,
            **_checked(said, whole=True),
            "id": id,
            "date_entered": now,
            "date_modified": now,
            "deleted": False,
        }
        return self.rows[id]

    def get(self, id: str) -> Row:
        if id not in self.rows:
            raise Refusal(404, "not_found", f"Could not find record: {id} in module: WebLogicHooks")
        return self.rows[id]

    def update(self, id: str, said: Mapping[str, Any]) -> Row:
        self.rows[id] = {**self.get(id), **_checked(said, whole=False), "date_modified": moment(self.clock() * 1000)}
        return self.rows[id]

    def delete(self, id: str) -> None:
        self.get(id)
        del self.rows[id]

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {"id": id, "url": row["url"], "active": True, "module": row["webhook_target_module"], "event": row["trigger_event"]}
            for id, row in self.rows.items()
        ]

    def endpoints(self, path: str, answered: Callable[[Callable[[Request], Any]], Handler]) -> list[Endpoint]:
        """
        Args:
            answered: lets a handler return what is answered with 200.
        """

        async def create(request: Request) -> Any:
            return self.create(await json_body(request))

        async def get(request: Request) -> Any:
            return self.get(request.path_params["id"])

        async def update(request: Request) -> Any:
            return self.update(request.path_params["id"], await json_body(request))

        async def delete(request: Request) -> Any:
            self.delete(request.path_params["id"])
            return {"id": request.path_params["id"]}

        async def listed(request: Request) -> Any:
            said = await json_body(request)
            found = sorted(self.rows.values(), key=lambda row: str(row["id"]))
            rows = [row for row in found if filters.holds(said.get("filter") or [], row.get)]
            size, offset = whole(said.get("max_num"), 20), whole(said.get("offset"), 0)
            return {"next_offset": offset + size if len(rows) > offset + size else -1, "records": rows[offset : offset + size]}

        one = f"{path}/{{id}}"
        return [
            Endpoint("POST", path, answered(create)), Endpoint("POST", f"{path}/filter", answered(listed)), Endpoint("GET", one, answered(get)),
            Endpoint("PUT", one, answered(update)), Endpoint("DELETE", one, answered(delete)),
        ]  # fmt: skip

    # ---- what they send ----

    def changed(self, module: str, before: Row | None, after: Row) -> None:
        """Queue a job for each hook of a record that was saved or deleted."""
        if before is not None and before["date_modified"] == after["date_modified"]:
            return  # written past the bean: no hook runs
        event = "after_delete" if after["deleted"] else "after_save"
        for hook in [
            each for each in self.rows.values() if (each["webhook_target_module"], each["trigger_event"]) == (module, event)
        ]:
            self._queue(hook, self._payload(module, event, before, after))

    def _payload(self, module: str, event: str, before: Row | None, after: Row) -> bytes:
        said: Row = {"id": after["id"]}
        if event == "after_save":
            changed = [name for name in after if before is None or after[name] != before.get(name)]
            differences = {
                name: {"field_name": name, "data_type": "varchar", "before": before.get(name) if before else None, "after": after[name]}
                for name in changed if name not in _OWN
            }  # fmt: skip
            said = {"isUpdate": before is not None, "dataChanges": differences if before is not None else {}}
        row = self.shown(module, {**after, "deleted": False})
        return orjson.dumps({**said, "bean": _BEANS[module], "data": {**row, "deleted": after["deleted"]}, "event": event})

    def _queue(self, hook: Row, body: bytes) -> None:
        if self.outbox is None:
            return
        until_cron = _CRON - self.clock() % _CRON
        headers = {"Content-Type": "application/json", "User-Agent": "SugarCrm"}
        sending = Sending(
            hook=hook["id"], url=hook["url"], key=str(uuid.uuid4()), make=lambda _: (headers, body), method=hook["request_method"], timeout=_TIMEOUT,
        )  # fmt: skip
        self.outbox.post(sending, after=until_cron + self._rng.random() / 100)


def _checked(said: Mapping[str, Any], *, whole: bool) -> Row:
    """Return the fields that are kept.

    Raises:
        Refusal: one is missing or does not fit.
    """
    kept = {name: said[name] for name in _FIELDS if name in said}
    needed = [name for name in _FIELDS if name != "request_method" and not kept.get(name) and (whole or name in kept)]
    if needed:
        raise Refusal(400, "missing_parameter", f"Missing required field(s): {', '.join(needed)}")
    allowed = {"trigger_event": EVENTS, "request_method": _METHODS}
    for name, value in kept.items():
        if not isinstance(value, str) or value not in allowed.get(name, {value}) or (name == "url" and len(value) > _URL):
            raise Refusal(422, "invalid_parameter", f"Invalid field value: {name} in module: WebLogicHooks")
    return kept

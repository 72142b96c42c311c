"""Sugar's web logic hooks: a module of its own by REST, and what cron sends once a minute.

From the Developer Guide: hooks are for one module and one event; jobs wait in a queue until cron runs. Decided here, since no document says:
cron runs at each full minute of the sandbox's clock; a hook that is not taken is not sent again; its body holds the whole record as it was
when the event happened; a save that changes nothing sends nothing; a change of account is a save and ties, too.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import Request

from sandbox import sugarcrm_filter as filters
from sandbox.clock import SandboxClock
from sandbox.sugarcrm_records import Refusal
from sandbox.table import Row
from sandbox.webhooks import Sending

_BEANS = {"Contacts": "Contact", "Leads": "Lead", "Accounts": "Account", "Opportunities": "Opportunity", "Users": "User"}
_TIES = ("after_relationship_add", "after_relationship_delete")
_EVENTS = frozenset({"after_save", "after_delete", *_TIES, "after_login", "after_logout", "after_login_failed"})
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})
_FIELDS = ("name", "url", "webhook_target_module", "request_method", "trigger_event")
_MINUTE = 60.0
_UNTOLD = frozenset({"date_modified", "modified_user_id"})  # what every save moves


@dataclass(slots=True)
class Hooks:
    clock: SandboxClock
    post: Callable[[Sending, float], None]
    _hooks: dict[str, Row] = field(default_factory=dict)

    # ---- REST ----

    async def create(self, request: Request) -> Any:
        return self.add(await _said(request))

    def add(self, said: Mapping[str, Any]) -> Row:
        if missing := [name for name in _FIELDS if not said.get(name)]:
            raise Refusal(400, "missing_parameter", f"Missing required field(s): {', '.join(missing)}")
        self._check(said)
        row = {"id": str(uuid.uuid4()), **{name: said[name] for name in _FIELDS}, "deleted": False, "_module": "WebLogicHooks"}
        self._hooks[row["id"]] = row
        return row

    async def update(self, request: Request) -> Any:
        said = {name: value for name, value in (await _said(request)).items() if name in _FIELDS}
        row = {**self._one(request), **said}
        self._check(row)
        self._hooks[row["id"]] = row
        return row

    def _check(self, said: Mapping[str, Any]) -> None:
        known = {"webhook_target_module": _BEANS, "request_method": _METHODS, "trigger_event": _EVENTS}
        for name, values in known.items():
            if said[name] not in values:
                raise Refusal(422, "invalid_parameter", f"Invalid field value: {name} in module: WebLogicHooks")
        if not str(said["url"]).startswith(("http://", "https://")):
            raise Refusal(422, "invalid_parameter", "Invalid field value: url in module: WebLogicHooks")

    async def found(self, request: Request) -> Any:
        said: Mapping[str, Any] = await _said(request) if request.method == "POST" else dict(request.query_params)
        tests: Sequence[Mapping[str, Any]] = said.get("filter") or [] if request.method == "POST" else []
        if unknown := [name for name in filters.fields_of(tests) if name not in {"id", *_FIELDS}]:
            raise Refusal(422, "invalid_parameter", f"Unknown field in filter: {unknown[0]}")
        rows = [row for row in self._hooks.values() if filters.holds(tests, row.get)]
        rows.sort(key=lambda row: str(row["id"]))
        offset, size = int(said.get("offset") or 0), int(said.get("max_num") or 20)
        return {"next_offset": offset + size if offset + size < len(rows) else -1, "records": rows[offset : offset + size]}

    async def get(self, request: Request) -> Any:
        return self._one(request)

    async def delete(self, request: Request) -> Any:
        return {"id": self._hooks.pop(self._one(request)["id"])["id"]}

    def _one(self, request: Request) -> Row:
        id = request.path_params["id"]
        if id not in self._hooks:
            raise Refusal(404, "not_found", f"Could not find record: {id} in module: WebLogicHooks")
        return self._hooks[id]

    def by_hand(self, url: str) -> None:
        """Make a hook for each module and event, as an administrator would."""
        for module in ("Contacts", "Leads", "Accounts", "Opportunities"):
            for event in ("after_save", "after_delete", *_TIES):
                self.add({"name": f"{module} {event}", "url": url, "webhook_target_module": module, "request_method": "POST", "trigger_event": event})  # fmt: skip

    def listed(self) -> list[Mapping[str, Any]]:
        return [
            {"id": id, "url": row["url"], "active": True, "event": f"{row['webhook_target_module']}.{row['trigger_event']}"}
            for id, row in self._hooks.items()
        ]

    # ---- what happens ----

    def changed(self, module: str, before: Row | None, after: Row | None) -> None:
        """Tell of a record that was made, edited or deleted."""
        if after is None:  # pruned: it was deleted before
            return
        if after["deleted"]:
            if before is not None and not before["deleted"]:
                self._tell(module, "after_delete", {"isUpdate": True, "dataChanges": {}, "data": after})
            return
        old = before or {}
        edits = {
            name: {"field_name": name, "data_type": "varchar", "before": old.get(name), "after": value}
            for name, value in after.items()
            if name not in _UNTOLD and old.get(name) != value
        }
        if before is not None and not edits:
            return
        told = {"isUpdate": before is not None, "dataChanges": edits if before is not None else {}, "data": after}
        self._tell(module, "after_save", told)
        was, now = old.get("account_id"), after.get("account_id")
        if module in {"Contacts", "Opportunities"} and was != now:
            for event, other in (("after_relationship_delete", was), ("after_relationship_add", now)):
                if other:
                    self._related(module, event, after, "accounts", "Accounts", other)

    def tied(self, module: str, row: Row, link: str, there: str, other: str, *, added: bool) -> None:
        """Tell of one end of a tie."""
        self._related(module, _TIES[0] if added else _TIES[1], row, link, there, other)

    def _related(self, module: str, event: str, row: Row, link: str, there: str, other: str) -> None:
        more = {"isUpdate": True, "dataChanges": {}, "link": link, "related_module": there, "related_id": other}
        self._tell(module, event, {**more, "data": row})

    def _tell(self, module: str, event: str, told: Row) -> None:
        body = orjson.dumps({**told, "bean": _BEANS[module], "event": event})
        for id, hook in self._hooks.items():
            if (hook["webhook_target_module"], hook["trigger_event"]) != (module, event):
                continue
            sending = Sending(
                hook=id, url=hook["url"], key=str(uuid.uuid4()), method=hook["request_method"], make=lambda _: ({"Content-Type": "application/json"}, body),
            )  # fmt: skip
            self.post(sending, _MINUTE - self.clock.time() % _MINUTE)


async def _said(request: Request) -> Row:
    try:
        said = orjson.loads(await request.body() or b"{}")
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid_request", "The body is not JSON") from error
    if not isinstance(said, dict):
        raise Refusal(400, "invalid_request", "The body is no object")
    return said

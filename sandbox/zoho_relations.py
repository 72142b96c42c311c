"""Zoho's related lists: contacts and deals of an account, deals of a contact, and the contact roles that tie contacts to a deal."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.table import Row
from sandbox.zoho_answers import error
from sandbox.zoho_modules import DISPLAY, ROLES, Module
from sandbox.zoho_writes import Writer, live

_ROLE_IDS = {f"5540230000000068{at + 70}": name for at, name in enumerate(ROLES)}
_LISTS = {  # (module, related list) → (module of the rows, the index that ties them)
    ("Accounts", "Contacts"): ("Contacts", "Account_Name"), ("Accounts", "Deals"): ("Deals", "Account_Name"), ("Contacts", "Deals"): ("Deals", "$contacts"),
}  # fmt: skip


class Relations:
    def __init__(self, modules: Mapping[str, Module], writer: Writer) -> None:
        self._modules, self._writer = modules, writer
        self._roles: dict[tuple[str, str], str] = {}  # (deal, contact) → role id, where one was set here

    def name_of(self, module: Module, row: Row) -> str:
        return str(row[DISPLAY[module.name]])

    async def roles(self, _: Request) -> Response:
        found = [{"id": id, "name": name, "sequence_number": at + 1} for at, (id, name) in enumerate(_ROLE_IDS.items())]
        return json_response({"contact_roles": found})

    async def listed(self, request: Request) -> Response:
        """Deals in order of creation; the contacts of a deal with their role, in no order that says which is the primary one."""
        name, id, relation = (request.path_params[each] for each in ("module", "id", "relation"))
        module, said = self._modules.get(name), request.query_params
        tie = _LISTS.get((name, relation))
        if module is None or (tie is None and (name, relation) != ("Deals", "Contact_Roles")):
            return error(400, "INVALID_DATA", "the relation name given seems to be invalid", resource_path_index=2)
        parent = live(module, id)
        if parent is None:
            return error(400, "INVALID_DATA", "the related id given seems to be invalid", resource_path_index=1)
        if not said.get("fields"):
            return error(400, "REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", param_name="fields")
        names, size, number = said["fields"].split(","), int(said.get("per_page", "200")), int(said.get("page", "1"))
        if not 1 <= size <= 200 or len(names) > 50:
            return error(400, "INVALID_DATA", "invalid data", param_name="per_page" if len(names) <= 50 else "fields")
        if tie is None:
            found = [row for each in sorted(parent["$contacts"]) if (row := live(self._modules["Contacts"], each)) is not None]
        else:
            found = [row for row in self._modules[tie[0]].table.having(tie[1], [id]) if row["$deleted"] is None]
            found.sort(key=lambda row: (row["Created_Time"], row["id"]))
        rows = [self._shown(row, names, deal=id if tie is None else None) for row in found[(number - 1) * size : number * size]]
        info = {"per_page": size, "count": len(rows), "page": number, "more_records": len(found) > number * size}
        return json_response({"data": rows, "info": info}) if rows else Response(status_code=204)

    def _shown(self, row: Row, names: list[str], *, deal: str | None) -> Row:
        shown = {**{name: row[name] for name in names if name in row and not name.startswith("$")}, "id": row["id"]}
        if deal is not None:
            role = self._roles.get((deal, row["id"]), next(iter(_ROLE_IDS)))
            shown["Contact_Role"] = {"name": _ROLE_IDS[role], "id": role}
        return shown

    async def tie(self, request: Request) -> Response:
        deals, contacts = self._modules["Deals"], self._modules["Contacts"]
        deal, contact = live(deals, request.path_params["id"]), live(contacts, request.path_params["contact"])
        if deal is None or contact is None:
            return _verdict("INVALID_DATA", "the id given seems to be invalid", {"resource_path_index": 1 if deal is None else 3})
        body = orjson.loads(await request.body())
        role = str((body["data"][0].get("Contact_Role") or {}).get("id"))
        if role not in _ROLE_IDS:
            return _verdict(
                "MANDATORY_NOT_FOUND",
                "required field not found",
                {"api_name": "Contact_Role", "json_path": "$.data[0].Contact_Role"},
            )
        self._roles[deal["id"], contact["id"]] = role
        if contact["id"] not in deal["$contacts"]:
            self._writer.change(deals, {**deal, "$contacts": [*deal["$contacts"], contact["id"]]})
        return _verdict("SUCCESS", "relation added", {"id": contact["id"]})

    async def untie(self, request: Request) -> Response:
        deals = self._modules["Deals"]
        deal, contact = live(deals, request.path_params["id"]), request.path_params["contact"]
        if deal is None or contact not in deal["$contacts"]:
            return _verdict("INVALID_DATA", "the id given seems to be invalid", {"resource_path_index": 3})
        primary = deal["Contact_Name"] if deal["Contact_Name"] and deal["Contact_Name"]["id"] != contact else None
        self._writer.change(
            deals, {**deal, "$contacts": [each for each in deal["$contacts"] if each != contact], "Contact_Name": primary}
        )
        return _verdict("SUCCESS", "relation removed", {"id": contact})


def _verdict(code: str, message: str, details: dict[str, Any]) -> Response:
    status = "success" if code == "SUCCESS" else "error"
    return json_response(
        {"data": [{"code": code, "details": details, "message": message, "status": status}]},
        status=200 if status == "success" else 400,
    )

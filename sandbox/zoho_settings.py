"""What a Zoho org says about itself: its users, modules, fields, layouts and pipelines."""

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.table import Row, Table
from sandbox.zoho_answers import PAGE, error, needed
from sandbox.zoho_modules import LABELS, LAYOUT_ID, ORG_ID, Module, described, pipeline, zoho_id

_ROWS = 100


class Settings:
    def __init__(self, modules: Mapping[str, Module], users: Table[Any], module: Callable[[str], Module]) -> None:
        self._modules, self._users, self._module = modules, users, module

    async def org(self, _: Request) -> Response:
        org = {
            "id": ORG_ID, "zgid": "60001234567", "company_name": "C360 Demo", "primary_email": "demo@c360-demo.example", "currency": "US Dollar", "iso_code": "USD",
            "currency_symbol": "$", "currency_locale": "en_US", "time_zone": "Asia/Kolkata", "country_code": "IN", "country": "IN", "mc_status": True, "max_per_page": 200, "type": "Production",
        }  # fmt: skip
        return json_response({"org": [org]})

    async def users(self, request: Request) -> Response:
        said = request.query_params
        rows = list(self._users)
        if "ids" in said:
            wanted = said["ids"].split(",")
            if len(wanted) > _ROWS:
                return error(400, "LIMIT_EXCEEDED", "more ids than allowed", param_name="ids", limit=_ROWS)
            rows = [row for row in rows if row["id"] in wanted]
        rows = rows[:1] if said.get("type") == "CurrentUser" else rows
        rows = [row for row in rows if row["status"] == "active"] if said.get("type") == "ActiveUsers" else rows
        info = {"per_page": PAGE, "count": len(rows), "page": 1, "more_records": False}
        return json_response({"users": rows, "info": info}) if rows else Response(status_code=204)

    async def user(self, request: Request) -> Response:
        row = self._users.get(request.path_params["id"])
        return json_response({"users": [row]}) if row is not None else Response(status_code=204)

    async def modules(self, _: Request) -> Response:
        found: list[Row] = [
            {
                "api_name": name, "module_name": name, "singular_label": LABELS[name][0], "plural_label": LABELS[name][1], "generated_type": "custom" if module.custom else "default",
                "api_supported": True, "viewable": True, "creatable": True, "editable": True, "deletable": True, "visible": True, "id": zoho_id(name, 0),
                "modified_time": None, "modified_by": None, "profiles": [], "sequence_number": at, "business_card_field_limit": 5,
            }
            for at, (name, module) in enumerate(self._modules.items())
        ]  # fmt: skip
        return json_response({"modules": found})

    async def fields(self, request: Request) -> Response:
        module = self._module(needed(request, "module"))
        return json_response({"fields": [described(name, spec, at) for at, (name, spec) in enumerate(module.specs.items())]})

    async def layouts(self, request: Request) -> Response:
        self._module(needed(request, "module"))
        return json_response(
            {
                "layouts": [
                    {
                        "id": LAYOUT_ID,
                        "name": "Standard",
                        "display_label": "Standard",
                        "visible": True,
                        "status": "active",
                        "sections": [],
                    }
                ]
            }
        )

    async def pipeline(self, request: Request) -> Response:
        if needed(request, "layout_id") != LAYOUT_ID:
            return error(400, "INVALID_DATA", "the id given seems to be invalid", param_name="layout_id")
        return json_response({"pipeline": pipeline()})

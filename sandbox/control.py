"""The controls of the vendor world (loopback only): calls, clock, faults, the truth about people, changes by hand."""

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sandbox.clock import SandboxClock
from sandbox.dialect import Dialect, json_response
from sandbox.faults import Fault, Faults
from sandbox.world import World


class _Advance(BaseModel):
    model_config = ConfigDict(extra="forbid")

    advance_s: float = Field(ge=0, le=10 * 365 * 86_400)


Handler = Callable[[Request], Awaitable[Response]]


def control_routes(world: World, clock: SandboxClock, faults: Faults, dialects: Mapping[str, Dialect]) -> list[BaseRoute]:
    async def calls(_: Request) -> Response:
        return json_response({name: dict(sorted(each.calls.items())) for name, each in dialects.items()})

    async def reset_calls(_: Request) -> Response:
        for each in dialects.values():
            each.calls.clear()
        return Response(status_code=204)

    async def advance(request: Request) -> Response:
        clock.advance(_Advance.model_validate_json(await request.body()).advance_s)
        return json_response({"now": clock.now().isoformat()})

    async def add_fault(request: Request) -> Response:
        fault = Fault.model_validate_json(await request.body())
        if fault.system not in {*dialects, "*"}:
            return _refused(f"no system {fault.system!r}; there are: {', '.join(dialects)}")
        return json_response({"id": faults.add(fault)}, status=201)

    async def list_faults(_: Request) -> Response:
        return json_response({str(number): rule for number, rule in faults.listed().items()})

    async def clear_faults(_: Request) -> Response:
        faults.clear()
        for each in dialects.values():
            each.skew = 0.0
        return Response(status_code=204)

    async def remove_fault(request: Request) -> Response:
        return Response(status_code=204 if faults.remove(request.path_params["number"]) else 404)

    async def people(request: Request) -> Response:
        limit = request.query_params.get("limit", "100")
        offset = request.query_params.get("offset", "0")
        if not (limit.isdigit() and offset.isdigit()):
            return _refused("limit and offset must be whole numbers")
        chosen = world.people[int(offset) : int(offset) + int(limit)]
        return json_response({
            "total": len(world.people),
            "people": [
                {
                    "id": person.id, "given": person.given, "family": person.family, "email": person.email,
                    "privateEmail": person.private_email, "phone": person.phone,
                    "systems": {name: known for name, each in dialects.items() if (known := each.truth(person))},
                }
                for person in chosen
            ],
        })  # fmt: skip

    async def change(request: Request) -> Response:
        dialect = dialects.get(request.path_params["system"])
        kind, native_id = request.path_params["kind"], request.path_params["id"]
        if dialect is None or kind not in dialect.tables:
            return _refused("no such system or kind", status=404)
        fields = {} if request.method == "DELETE" else await request.json()
        late = faults.strikes(dialect.name, f"{request.method} /{kind}", only="late_commit")
        with clock.behind(late.seconds if late is not None else 0.0):
            if request.method == "DELETE":
                return Response(status_code=204) if dialect.delete(kind, native_id) else _refused("no such record", status=404)
            row = dialect.change(kind, native_id, fields)
        return json_response(row) if row is not None else _refused("no such record", status=404)

    async def webhooks(_: Request) -> Response:
        return json_response({
            name: {
                "subscriptions": each.subscriptions(),
                "deliveries": [asdict(delivered) for delivered in each.outbox.log],
            }
            for name, each in dialects.items()
        })  # fmt: skip

    return [
        Route("/calls", _guarded(calls), methods=["GET"]),
        Route("/calls", _guarded(reset_calls), methods=["DELETE"]),
        Route("/clock", _guarded(advance), methods=["POST"]),
        Route("/faults", _guarded(add_fault), methods=["POST"]),
        Route("/faults", _guarded(list_faults), methods=["GET"]),
        Route("/faults", _guarded(clear_faults), methods=["DELETE"]),
        Route("/faults/{number:int}", _guarded(remove_fault), methods=["DELETE"]),
        Route("/people", _guarded(people), methods=["GET"]),
        Route("/webhooks", _guarded(webhooks), methods=["GET"]),
        Route("/records/{system}/{kind}/{id:path}", _guarded(change), methods=["PATCH", "DELETE"]),
    ]


def _guarded(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        if request.client is not None and not _loopback(request.client.host):
            return _refused("the controls answer on loopback only", status=403)
        try:
            return await handler(request)
        except (ValidationError, ValueError) as error:
            return _refused(str(error))

    return guarded


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in {"localhost", "testclient", "testserver"}


def _refused(message: str, *, status: int = 400) -> Response:
    return json_response({"error": message}, status=status)

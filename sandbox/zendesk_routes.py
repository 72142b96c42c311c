"""The addresses by which Zendesk is written to: single records, and jobs for up to a hundred.

A job's work is done when it is taken, and told as completed a second later. How the results of a job name an error is not in the
reference: the words here are "UserCreateError" and the like, with the record's own problem as `details`.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from sandbox.clock import SandboxClock
from sandbox.dialect import Endpoint, json_response
from sandbox.table import Row
from sandbox.zendesk_writing import Refused, Writing

_MANY, _JOBS, _WORKING = 100, 30, 1.0  # records in a job, jobs at once, seconds until one is told as completed
_REMEMBERED = 7200.0  # seconds for which an idempotency key is known
_KINDS = ("users", "organizations", "tickets")
Handler = Callable[[Request], Awaitable[Response]]


class Routes:
    """
    Args:
        base: what the vendor's own addresses start with.
    """

    def __init__(self, writing: Writing, clock: SandboxClock, *, base: str) -> None:
        self._writing, self._clock, self._base = writing, clock, base
        self._jobs: dict[str, tuple[float, Row]] = {}  # id → when it was taken, what it will have become
        self._keys: dict[str, tuple[float, str, Row]] = {}  # idempotency key → until when, digest of the request, its answer

    def endpoints(self, suffix: str) -> list[Endpoint]:
        root = "/api/v2"
        found = [
            self._open("POST", f"{root}/users/create_or_update{suffix}", self._create_or_update),
            self._open("POST", f"{root}/users/create_or_update_many{suffix}", partial(self._job, "users", "create_or_update")),
            self._open("PUT", f"{root}/users/{{id:int}}/merge{suffix}", self._merge),
            self._open("GET", f"{root}/users/{{id:int}}/identities{suffix}", self._identities),
            self._open("PUT", f"{root}/users/{{id:int}}/identities/{{identity:int}}/make_primary{suffix}", self._make_primary),
            self._open("GET", f"{root}/job_statuses/{{id}}{suffix}", self._job_status),
        ]
        for kind in _KINDS:
            found += [
                self._open("POST", f"{root}/{kind}/create_many{suffix}", partial(self._job, kind, "create")),
                self._open("PUT", f"{root}/{kind}/update_many{suffix}", partial(self._job, kind, "update")),
                self._open("DELETE", f"{root}/{kind}/destroy_many{suffix}", partial(self._job, kind, "delete")),
                self._open("POST", f"{root}/{kind}{suffix}", partial(self._create, kind)),
                self._open("PUT", f"{root}/{kind}/{{id:int}}{suffix}", partial(self._update, kind)),
                self._open("DELETE", f"{root}/{kind}/{{id:int}}{suffix}", partial(self._delete, kind)),
            ]
        return found

    def _open(self, method: str, path: str, handler: Handler) -> Endpoint:
        async def answered(request: Request) -> Response:
            try:
                return await handler(request)
            except Refused as refusal:
                if isinstance(refusal.body, str):
                    headers = {"Retry-After": str(max(1, round(refusal.wait + 0.5)))}
                    return PlainTextResponse(refusal.body, status_code=refusal.status, headers=headers)
                return json_response(refusal.body, status=refusal.status)

        return Endpoint(method, path, answered)

    # ---- one record ----

    async def _create(self, kind: str, request: Request) -> Response:
        said = await _said(request, _one(kind))
        key = request.headers.get("idempotency-key") if kind == "tickets" else None
        digest = hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()
        if key is not None and (known := self._keys.get(key)) is not None and known[0] > self._clock.time():
            if known[1] != digest:
                words = "Request parameters don't match the given idempotency key"
                raise Refused(400, {"error": "IdempotentRequestError", "description": words})
            return json_response(known[2], status=201, headers={"x-idempotency-lookup": "hit"})
        row = self._writing.create(kind, said)
        body = {_one(kind): row, **({"audit": self._audit(row)} if kind == "tickets" else {})}
        headers = {"Location": row["url"]}
        if key is not None:
            self._keys[key] = (self._clock.time() + _REMEMBERED, digest, body)
            headers["x-idempotency-lookup"] = "miss"
        return json_response(body, status=201, headers=headers)

    async def _update(self, kind: str, request: Request) -> Response:
        id = str(request.path_params["id"])
        said = await _said(request, _one(kind))
        self._writing.find(kind, id)
        self._writing.count(kind, id)
        row = self._writing.update(kind, id, said)
        return json_response({_one(kind): row, **({"audit": self._audit(row)} if kind == "tickets" else {})})

    async def _delete(self, kind: str, request: Request) -> Response:
        row = self._writing.delete(kind, str(request.path_params["id"]))
        return json_response({"user": row}) if kind == "users" else Response(status_code=204)

    async def _create_or_update(self, request: Request) -> Response:
        row, is_new = self._writing.create_or_update(await _said(request, "user"))
        if not is_new:
            self._writing.count("users", str(row["id"]))
        return json_response({"user": row}, status=201 if is_new else 200, headers={"Location": row["url"]})

    async def _merge(self, request: Request) -> Response:
        said = await _said(request, "user")
        return json_response({"user": self._writing.merge(str(request.path_params["id"]), str(said.get("id")))})

    async def _identities(self, request: Request) -> Response:
        found = self._writing.addresses(self._writing.find("users", str(request.path_params["id"])))
        return json_response({"identities": found, "count": len(found)})

    async def _make_primary(self, request: Request) -> Response:
        found = self._writing.make_primary(str(request.path_params["id"]), request.path_params["identity"])
        return json_response({"identities": found, "count": len(found)})

    def _audit(self, row: Row) -> Row:
        event = {"id": row["id"] * 100 + 1, "type": "Change", "field_name": "subject", "value": row["subject"]}
        return {
            "id": row["id"] * 100,
            "ticket_id": row["id"],
            "created_at": row["updated_at"],
            "author_id": row["submitter_id"],
            "events": [event],
        }

    # ---- jobs ----

    async def _job(self, kind: str, verb: str, request: Request) -> Response:
        if sum(taken + _WORKING > self._clock.time() for taken, _ in self._jobs.values()) >= _JOBS:
            words = "Your request could not be processed because there are currently too many jobs queued or running. Try again later."
            raise Refused(429, {"error": "TooManyJobs", "description": words}, wait=_WORKING)
        ids = [each for each in request.query_params.get("ids", "").split(",") if each]
        if verb == "delete":
            rows: list[Row] = [{"id": id} for id in ids]
        elif ids:
            one = await _said(request, _one(kind))
            rows = [{**one, "id": id} for id in ids]
        else:
            rows = await _said(request, kind, many=True)
        if not rows or len(rows) > _MANY:
            raise Refused(422, {"error": "TooManyValues", "description": f"You may only supply up to {_MANY} {kind}"})
        results = [self._result(kind, verb, at, row) for at, row in enumerate(rows)]
        id = secrets.token_hex(16)
        done = {
            "id": id, "job_type": f"Bulk {verb.replace('_', ' ').title()} {_one(kind).title()}", "url": f"{self._base}/job_statuses/{id}.json", "total": len(rows),
            "progress": len(rows), "status": "completed", "message": f"Completed at {self._clock.now():%Y-%m-%d %H:%M:%S %z}", "results": results,
        }  # fmt: skip
        self._jobs[id] = (self._clock.time(), done)
        return json_response({"job_status": self._told(id)})

    def _result(self, kind: str, verb: str, at: int, row: Row) -> Row:
        said = {name: value for name, value in row.items() if name != "id"}
        try:
            if verb == "create_or_update":
                saved, is_new = self._writing.create_or_update(said)
                told = ("create", "Created") if is_new else ("update", "Updated")
            elif verb == "create":
                saved, told = self._writing.create(kind, said), ("create", "Created")
            elif verb == "update":
                saved, told = self._writing.update(kind, str(row.get("id")), said), ("update", "Updated")
            else:
                saved, told = self._writing.delete(kind, str(row["id"])), ("delete", "Deleted")
        except Refused as refusal:
            error = f"{_one(kind).title()}{verb.title().replace('_', '')}Error"
            return {
                "index": at,
                "id": row.get("id"),
                "success": False,
                "status": "Failed",
                "error": error,
                "details": refusal.details,
            }
        return {"index": at, "id": saved["id"], "success": True, "action": told[0], "status": told[1]}

    async def _job_status(self, request: Request) -> Response:
        id = request.path_params["id"].removesuffix(".json")
        if id not in self._jobs:
            raise Refused(404, {"error": "RecordNotFound", "description": "Not found"})
        return json_response({"job_status": self._told(id)})

    def _told(self, id: str) -> Row:
        taken, done = self._jobs[id]
        if taken + _WORKING <= self._clock.time():
            return done
        return {**done, "progress": None, "status": "queued", "message": None, "results": None}


def _one(kind: str) -> str:
    return kind.removesuffix("s")


async def _said(request: Request, key: str, *, many: bool = False) -> Any:
    try:
        said = orjson.loads(await request.body())[key]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        said = None
    if not isinstance(said, list if many else dict):
        words = f"You passed an invalid value for the {key} attribute. Invalid parameter: {key} is missing"
        raise Refused(400, {"error": {"title": "Invalid attribute", "message": words}})
    return said

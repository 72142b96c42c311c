"""`/graphql`, to the letter of the GraphQL-over-HTTP draft."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from graphql import DocumentNode, GraphQLError, OperationDefinitionNode, OperationType, get_operation_ast
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from strawberry import Schema

from gateway import limits as documents
from gateway.callers import Caller
from gateway.errors import refusal, shown
from gateway.limits import Limits
from model.errors import C360Error, CallerUnknownError, InvalidRequestError
from telemetry.metrics import Metrics

log = logging.getLogger(__name__)

MediaType = Literal["application/json", "application/graphql-response+json"]
JSON: Final = "application/json"
GRAPHQL: Final = "application/graphql-response+json"
_SAFE: Final = frozenset({"GET", "HEAD"})
_MAX_NESTING = 100  # levels of a body: deeper ones cost stack when variables are coerced


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    query: str
    operation: str | None
    variables: dict[str, Any] | None


class _Refused(Exception):
    """The request is not executed."""

    def __init__(self, status: int, message: str, *, code: str = "VALIDATION", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


class GraphQLEndpoint:
    """The endpoint over one schema.

    Args:
        identify: returns who asks, or raises CallerUnknownError.
        context: makes what resolvers get, once per request.
    """

    def __init__(
        self, schema: Schema, *, identify: Callable[[Request], Awaitable[Caller]], context: Callable[[Request, Caller], Awaitable[Any]],
        limits: Limits, max_body: int, introspection: bool, metrics: Metrics,
    ) -> None:  # fmt: skip
        self._schema, self._identify, self._context = schema, identify, context
        self._limits, self._max_body, self._metrics = limits, max_body, metrics
        self._suggest = introspection

    async def __call__(self, request: Request) -> Response:
        began = time.perf_counter()
        outcome = "error"
        try:
            with self._metrics.in_flight.track_inprogress():
                response, outcome = await self._answered(request)
            return response
        except ClientDisconnect:
            outcome = "gone"
            return Response(status_code=499)
        except Exception:
            log.exception("unexpected error")
            return _response(refusal("INTERNAL", "Internal error. Tell us the request id."), 500, JSON)
        finally:
            took = time.perf_counter() - began
            self._metrics.requests.labels(outcome).inc()
            self._metrics.duration.observe(took)
            log.info(
                "request answered",
                extra={"http.request.method": request.method, "outcome": outcome, "duration_s": round(took, 4)},
            )

    async def _answered(self, request: Request) -> tuple[Response, str]:
        media: MediaType = JSON
        try:
            media = _negotiated(request.headers.get("accept"))
            caller = await self._identify(request)
            asked = await self._asked(request)
            document = documents.check(asked.query, self._limits)
            self._check_method(request, document, asked)
        except _Refused as error:
            return _response(refusal(error.code, error.message), error.status, media, error.headers), "refused"
        except CallerUnknownError as error:
            headers = {"www-authenticate": 'Bearer realm="customer360"'}
            return _response(refusal(error.code, error.message), 401, media, headers), "unauthenticated"
        except InvalidRequestError as error:
            return _response(refusal(error.code, error.message), 400, media), "refused"
        result = await self._executed(request, caller, asked)
        if result is None:
            raise ClientDisconnect
        executed, body = result
        status = 200 if executed or media == JSON else 400
        return _response(body, status, media), "partial" if "errors" in body else "ok"

    async def _asked(self, request: Request) -> Asked:
        if request.method in _SAFE:
            query = request.query_params
            said: Any = {name: query[name] for name in ("query", "operationName") if name in query}
            for name in ("variables", "extensions"):
                if query.get(name):
                    said[name] = _parsed(query[name].encode(), f"`{name}`")
        else:
            said = await self._posted(request)
        if not isinstance(said, dict):
            raise _Refused(400, "the body must be a JSON object; batches are not supported")
        return _understood(said)

    async def _posted(self, request: Request) -> Any:
        kind, _, parameters = request.headers.get("content-type", "").partition(";")
        if kind.strip().lower() != JSON:
            raise _Refused(415, f"the content type must be {JSON}")
        charset = next(
            (part.partition("=")[2].strip(' "').lower() for part in parameters.split(";") if "charset" in part.lower()), "utf-8"
        )
        if charset not in {"utf-8", "utf8"}:
            raise _Refused(415, "the charset must be utf-8")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise _Refused(415, "compressed requests are not supported")
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body:
            raise _Refused(413, f"the body must have at most {self._max_body} bytes")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body:
                raise _Refused(413, f"the body must have at most {self._max_body} bytes")
        return _parsed(bytes(body), "the body")

    def _check_method(self, request: Request, document: DocumentNode | None, asked: Asked) -> None:
        if document is None or request.method not in _SAFE:
            return
        operation = get_operation_ast(document, asked.operation)
        if isinstance(operation, OperationDefinitionNode) and operation.operation is not OperationType.QUERY:
            raise _Refused(405, "only queries are answered to GET", headers={"allow": "POST"})

    async def _executed(self, request: Request, caller: Caller, asked: Asked) -> tuple[bool, dict[str, Any]] | None:
        """Return (executed, body), or None when the client has hung up; its work is then cancelled."""
        context = await self._context(request, caller)
        work = asyncio.ensure_future(self._schema.execute(asked.query, asked.variables, context, operation_name=asked.operation))
        gone = asyncio.ensure_future(_hung_up(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return None
            result = work.result()
        except C360Error as error:
            return False, refusal(error.code, error.message)
        except (
            GraphQLError,
            ValueError,
            RecursionError,
        ) as error:  # an operation that is not there, a document that cannot be walked
            return False, refusal("VALIDATION", str(error))
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        errors = [shown(error, suggest=self._suggest) for error in result.errors or ()]
        executed = result.data is not None or any(error.path for error in result.errors or ())
        body: dict[str, Any] = {"errors": errors} if errors else {}
        if executed:
            body["data"] = result.data
        return executed, body


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _negotiated(accept: str | None) -> MediaType:
    """Choose the media type of the answer by the Accept header: quality first, then order; a named type beats a wildcard."""
    if not accept:
        return JSON
    named: dict[str, tuple[float, int]] = {}
    for at, part in enumerate(accept.split(",")):
        kind, *parameters = (each.strip().lower() for each in part.split(";"))
        try:
            named[kind] = (float(next((each[2:] for each in parameters if each.startswith("q=")), "1")), -at)
        except ValueError:
            named[kind] = (0.0, -at)
    wild = max((named[kind] for kind in ("application/*", "*/*") if kind in named), default=None)
    offers: list[tuple[tuple[float, int], MediaType]] = []
    if (json := named.get(JSON, wild)) is not None:
        offers.append((json, JSON))
    if GRAPHQL in named:
        offers.append((named[GRAPHQL], GRAPHQL))
    usable = [offer for offer in offers if offer[0][0] > 0]
    if not usable:
        raise _Refused(406, f"answers are {GRAPHQL} or {JSON}")
    return max(usable)[1]


def _parsed(body: bytes, what: str) -> Any:
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise _Refused(400, f"{what} is not valid JSON") from None
    level = [said]
    for _ in range(_MAX_NESTING):
        level = [
            below
            for each in level
            if isinstance(each, dict | list)
            for below in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return said
    raise _Refused(400, f"{what} is nested too deeply")


def _understood(said: dict[str, Any]) -> Asked:
    query = said.get("query")
    if not isinstance(query, str) or not query.strip():
        raise _Refused(400, "`query` must be the document, as text")
    operation, variables = said.get("operationName"), said.get("variables")
    if operation is not None and not isinstance(operation, str):
        raise _Refused(400, "`operationName` must be text")
    if variables is not None and not isinstance(variables, dict):
        raise _Refused(400, "`variables` must be an object")
    if said.get("extensions") is not None and not isinstance(said["extensions"], dict):
        raise _Refused(400, "`extensions` must be an object")
    return Asked(query=query, operation=operation or None, variables=variables)


def _response(body: dict[str, Any], status: int, media: MediaType, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body, default=str), status_code=status, headers=headers, media_type=f"{media}; charset=utf-8")

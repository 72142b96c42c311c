"""Whether the process lives, whether it can serve, and its figures."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from telemetry.metrics import Metrics


def health_routes(
    ready: Callable[[], Awaitable[Sequence[str]]], metrics: Metrics, guarded: Callable[[Request], Awaitable[object]]
) -> list[BaseRoute]:
    """Return the routes.

    Args:
        ready: what is missing before requests can be served; empty when nothing is.
        guarded: raises for callers who may not see figures.
    """

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def is_ready(_: Request) -> Response:
        missing = list(await ready())
        return JSONResponse({"status": "not ready" if missing else "ok", "missing": missing}, status_code=503 if missing else 200)

    async def figures(request: Request) -> Response:
        await guarded(request)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return [Route("/health/live", live), Route("/health/ready", is_ready), Route("/metrics", figures)]

"""`/webhooks/{app}`: what systems send. Read up to a bound, proved, kept, and only then answered 2xx."""

import logging
import zlib
from collections.abc import Callable
from datetime import datetime

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from adapters.changes import Delivery
from gateway.errors import refusal
from model.errors import NotFoundError, SignatureError
from sync.hooks import Hooks
from telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class _TooLarge(Exception):
    pass


def webhook_route(
    hooks: Callable[[], Hooks], *, metrics: Metrics, now: Callable[[], datetime], max_body: int, public_url: str | None
) -> Route:
    """Return the route.

    Args:
        max_body: bytes, counted as they come in and again as they unpack.
        public_url: what the systems call us by: some sign the address. None: as the request says.
    """

    async def receive(request: Request) -> Response:
        try:
            body = await _read(request, max_body)
        except _TooLarge:
            metrics.webhooks.labels("too_large").inc()
            return _answer(413, "VALIDATION", f"a delivery may have at most {max_body} bytes")
        except (zlib.error, ValueError):
            metrics.webhooks.labels("unreadable").inc()
            return _answer(400, "VALIDATION", "the body is not in the encoding it names")
        except ClientDisconnect:
            return Response(status_code=499)
        query = f"?{request.url.query}" if request.url.query else ""
        url = f"{public_url.rstrip('/')}{request.url.path}{query}" if public_url else str(request.url)
        delivery = Delivery(
            method=request.method, url=url, headers={name.lower(): value for name, value in request.headers.items()}, body=body, at=now(),
            query=dict(request.query_params),
        )  # fmt: skip
        try:
            heard = await hooks().receive(request.path_params["app"], delivery)
        except NotFoundError as error:
            return _answer(404, error.code, error.message)
        except SignatureError as error:
            return _answer(401, error.code, error.message)
        except Exception as error:  # noqa: BLE001 - whatever it is, it was not kept: the system shall send it again
            metrics.webhooks.labels("not_kept").inc()
            log.warning("a webhook could not be kept", extra={"error.type": type(error).__name__})
            return _answer(503, "UPSTREAM", "not kept, send it again", {"retry-after": "5"})
        metrics.webhooks.labels("accepted").inc()
        return Response(heard.answer, status_code=200, media_type=heard.media_type)

    return Route("/webhooks/{app}", receive, methods=["GET", "POST"])


async def _read(request: Request, most: int) -> bytes:
    """Return the body, unpacked where it is packed with gzip or deflate; never more than `most` bytes of either."""
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 12 or int(length) > most):
        raise _TooLarge
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "", "gzip", "deflate"}:
        raise ValueError(encoding)
    unpack = zlib.decompressobj(wbits=47 if encoding == "gzip" else 15) if encoding in {"gzip", "deflate"} else None
    came, body = 0, bytearray()
    async for chunk in request.stream():
        came += len(chunk)
        body += unpack.decompress(chunk, most + 1 - len(body)) if unpack is not None else chunk
        if came > most or len(body) > most:
            raise _TooLarge
    if unpack is not None and not unpack.eof:
        raise ValueError("cut off")
    return bytes(body)


def _answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(refusal(code, message), status_code=status, headers=headers)

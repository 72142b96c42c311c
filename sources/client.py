"""The one place where HTTP clients are built.

httpx stands on aiohttp's transport: plain httpcore costs several times the CPU with many calls in flight. Swapping the
client again means this file.
"""

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 30.0  # seconds; each call's own deadline is usually shorter


def network(*, connections: int = 100, idle: float = 5.0) -> httpx.AsyncBaseTransport:
    """Return the transport that really sends; a line that was idle for so many seconds is not used again."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=idle)
    return _Network(limits=limits)


def client(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    """Return a client over `transport`. It follows no redirect: an API that redirects is not the API we know."""
    return httpx.AsyncClient(
        transport=transport,
        timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
        headers={"user-agent": "customer360", "accept": "application/json"},
        follow_redirects=False,
        trust_env=False,
    )


class _Network(AiohttpTransport):
    """aiohttp's transport, with a broken line told as one: httpx-aiohttp calls every connection error a ConnectTimeout.

    A ConnectError means that nothing was sent; a line that broke later is a ReadError, for the system may have heard.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except httpx.ConnectTimeout as error:
            cause = error.__cause__
            if not isinstance(cause, aiohttp.ClientConnectionError) or isinstance(cause, TimeoutError):
                raise
            broken = httpx.ConnectError if isinstance(cause, aiohttp.ClientConnectorError) else httpx.ReadError
            raise broken(str(error), request=request) from error

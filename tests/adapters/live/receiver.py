"""Someone who receives webhooks: a real server on loopback that keeps what came in as adapters are given it."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.changes import Delivery
from tests.world import served


@dataclass(slots=True)
class Receiver:
    """
    Attributes:
        url: where to send.
        deliveries: in the order in which they came.
        status: what is answered; a test may change it to make deliveries fail.
    """

    url: str = ""
    deliveries: list[Delivery] = field(default_factory=list)
    status: int = 200
    _came: threading.Condition = field(default_factory=threading.Condition)

    def wait(self, enough: Callable[[list[Delivery]], bool], *, seconds: float = 5.0) -> list[Delivery]:
        """Return the deliveries once there are enough of them; fail after `seconds`."""
        until = time.monotonic() + seconds
        with self._came:
            while not enough(self.deliveries):
                left = until - time.monotonic()
                assert left > 0, f"only {len(self.deliveries)} deliveries came"
                self._came.wait(left)
            return list(self.deliveries)

    async def take(self, request: Request) -> Response:
        body = await request.body()
        delivery = Delivery(
            method=request.method, url=str(request.url), headers=dict(request.headers), body=body, at=datetime.now(UTC),
            query=dict(request.query_params),
        )  # fmt: skip
        with self._came:
            self.deliveries.append(delivery)
            self._came.notify_all()
        return Response(status_code=self.status)


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """Listen on a free port, at /hook."""
    made = Receiver()
    app = Starlette(routes=[Route("/hook", made.take, methods=["GET", "POST"])])
    with served(uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))) as address:
        made.url = f"{address}/hook"
        yield made

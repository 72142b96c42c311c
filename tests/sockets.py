"""A plain client of graphql-transport-ws, that says exactly what a test wants said."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.world import World


class Socket:
    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def say(self, message: Any) -> None:
        self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def hear(self, timeout: float = 10) -> Any:
        return json.loads(self.connection.recv(timeout))

    def init(self, payload: Any = None) -> None:
        self.say({"type": "connection_init", **({"payload": payload} if payload is not None else {})})
        assert self.hear() == {"type": "connection_ack"}

    def subscribe(self, query: Any, id: str = "1", **payload: Any) -> None:
        self.say({"type": "subscribe", "id": id, "payload": {"query": query, **payload}})

    def event(self, timeout: float = 10) -> Any:
        """Return the value of the one field of the next result."""
        message = self.hear(timeout)
        assert message["type"] == "next", message
        assert "errors" not in message["payload"], message
        [value] = message["payload"]["data"].values()
        return value

    def error(self, id: str = "1") -> Any:
        """Return the one error that an operation ends with."""
        message = self.hear()
        assert (message["type"], message["id"]) == ("error", id), message
        [error] = message["payload"]
        return error

    def closed(self, timeout: float = 10) -> int:
        """Return the code that the server closes with."""
        try:
            while True:
                self.connection.recv(timeout)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd is not None else 1006


@contextlib.contextmanager
def socket(
    world: World, *, headers: Mapping[str, str] | None = None, protocols: Any = ("graphql-transport-ws",)
) -> Iterator[Socket]:
    with connect(address(world), subprotocols=protocols, additional_headers=headers) as connection:
        yield Socket(connection)


def address(world: World) -> str:
    return f"{world.http.base_url}".rstrip("/").replace("http", "ws", 1) + "/graphql"


@contextlib.contextmanager
def ready(world: World, **options: Any) -> Iterator[Socket]:
    """A socket that has been greeted."""
    with socket(world, **options) as made:
        made.init()
        yield made

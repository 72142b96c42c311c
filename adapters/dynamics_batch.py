"""`$batch`: several operations in one multipart body, and their answers in order.

After Microsoft's "Execute batch operations using the Web API": lines end with CRLF, a blank line follows each request's head, and
what belongs together stands in a change set.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import orjson

from adapters.wire import Response
from model.errors import ProtocolError

_BOUNDARY = re.compile(r'boundary="?([^";,\s]+)"?', re.IGNORECASE)
_LINE = re.compile(r"HTTP/1\.\d (\d{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One request to the Web API.

    Attributes:
        path: with the service root, such as "/api/data/v9.2/contacts".
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    json: object = None


def composed(groups: Sequence[Sequence[Operation]]) -> tuple[str, bytes]:
    """Return the media type and the body of a batch; a group of several operations is a change set: all of it or nothing."""
    boundary = f"batch_{uuid4()}"
    parts = [_part(group[0], None) if len(group) == 1 else _change_set(group) for group in groups]
    return f'multipart/mixed; boundary="{boundary}"', _joined(parts, boundary)


def answers(response: Response, count: int) -> list[Response]:
    """Return the answer to each group: that of a change set's first operation, or the one that failed it.

    Raises:
        ProtocolError: it is not one answer a group.
    """
    found = []
    for headers, body in _parts(response.body, response.headers.get("content-type", "")):
        if headers.get("content-type", "").startswith("multipart/mixed"):
            inner = [_read(text) for _, text in _parts(body, headers["content-type"])]
            found.append(next((each for each in inner if each.status >= 400), inner[0]))
        else:
            found.append(_read(body))
    if len(found) != count:
        raise ProtocolError(f"answered {len(found)} of {count} operations", status=response.status)
    return found


def _change_set(group: Sequence[Operation]) -> bytes:
    boundary = f"changeset_{uuid4()}"
    head = f'Content-Type: multipart/mixed; boundary="{boundary}"\r\n\r\n'.encode()
    return head + _joined([_part(each, nth) for nth, each in enumerate(group, start=1)], boundary)


def _part(operation: Operation, id: int | None) -> bytes:
    lines = ["Content-Type: application/http", "Content-Transfer-Encoding: binary"]
    if id is not None:
        lines.append(f"Content-ID: {id}")
    lines += ["", f"{operation.method} {operation.path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in operation.headers.items()]
    body = b""
    if operation.json is not None:
        lines.append("Content-Type: application/json")
        body = orjson.dumps(operation.json)
    return "\r\n".join([*lines, "", ""]).encode() + body + b"\r\n"


def _joined(parts: Sequence[bytes], boundary: str) -> bytes:
    edge = f"--{boundary}"
    return b"".join(f"{edge}\r\n".encode() + part for part in parts) + f"{edge}--\r\n".encode()


def _parts(body: bytes, media_type: str) -> Iterator[tuple[Mapping[str, str], bytes]]:
    said = _BOUNDARY.search(media_type)
    if said is None:
        raise ProtocolError("answered a batch with something else than parts")
    inside, end, _ = (b"\r\n" + body).partition(f"\r\n--{said[1]}--".encode())
    if not end:
        raise ProtocolError("the answer to a batch is cut off")
    for piece in inside.split(f"\r\n--{said[1]}\r\n".encode())[1:]:
        head, _, rest = piece.partition(b"\r\n\r\n")
        yield _headers(head), rest


def _read(text: bytes) -> Response:
    head, _, body = text.partition(b"\r\n\r\n")
    line, _, headers = head.partition(b"\r\n")
    said = _LINE.match(line.decode("latin-1").lstrip())
    if said is None:
        raise ProtocolError("a part of a batch is no answer")
    return Response(status=int(said[1]), headers=_headers(headers), body=body.strip())


def _headers(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode("latin-1").split("\r\n"))
    return {name.strip().lower(): value.strip() for name, separator, value in pairs if separator}

"""`$batch`: many operations in one multipart body, answered in order; change sets are done wholly or not at all.

After "Execute batch operations using the Web API": at most 1,000 operations; without `odata.continue-on-error` the first failure
ends the batch and gives it its status.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

from starlette.responses import Response

from sandbox.dynamics_reading import Call, Refusal

_MOST = 1000
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)

Transaction = Callable[[], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True, slots=True)
class _Part:
    headers: Mapping[str, str]
    body: bytes


def answer_batch(call: Call, operate: Callable[[Call], Response], *, transaction: Transaction) -> Response:
    """Carry out a batch.

    Args:
        operate: answers one operation.
        transaction: gives what undoes everything since, for a change set that fails half way.
    """
    parts = list(_parts(call.body, call.headers.get("content-type", "")))
    if sum(_count(part) for part in parts) > _MOST:
        raise Refusal(
            400, "0x80048d19", "The request exceeds the maximum allowed number of operations in a batch, which is 1000."
        )
    goes_on = call.prefers("odata.continue-on-error") is not None
    boundary = f"batchresponse_{uuid4()}"
    done: list[bytes] = []
    status = 200
    for part in parts:
        if part.headers.get("content-type", "").startswith("multipart/mixed"):
            with transaction() as roll_back:
                failed, text = _change_set(call, part, operate)
                if failed:
                    roll_back()
        else:
            response = operate(_operation(call, part))
            failed, text = response.status_code if response.status_code >= 400 else 0, _written(response, None)
        done.append(text)
        if failed and not goes_on:
            status = failed
            break
    body = b"".join(b"--" + boundary.encode() + b"\r\n" + text for text in done) + f"--{boundary}--\r\n".encode()
    return Response(
        body, status_code=status, headers={"Content-Type": f"multipart/mixed; boundary={boundary}", "OData-Version": "4.0"}
    )


def _change_set(call: Call, part: _Part, operate: Callable[[Call], Response]) -> tuple[int, bytes]:
    """Return the status where it failed, 0 where it did not, and the text that answers it."""
    made: dict[str, str] = {}
    done: list[bytes] = []
    for inner in _parts(part.body, part.headers["content-type"]):
        id = inner.headers.get("content-id", "")
        operation = _operation(call, inner, made)
        if operation.method == "GET":
            response = Refusal(400, "0x80060888", "GET is not allowed within a change set.").response
        else:
            response = operate(operation)
        if response.status_code >= 400:
            return response.status_code, _written(response, id)
        if id and "odata-entityid" in response.headers:
            made[f"${id}"] = response.headers["odata-entityid"]
        done.append(_written(response, id))
    boundary = f"changesetresponse_{uuid4()}"
    inside = b"".join(b"--" + boundary.encode() + b"\r\n" + text for text in done) + f"--{boundary}--\r\n".encode()
    return 0, f"Content-Type: multipart/mixed; boundary={boundary}\r\n\r\n".encode() + inside


def _count(part: _Part) -> int:
    kind = part.headers.get("content-type", "")
    return sum(1 for _ in _parts(part.body, kind)) if kind.startswith("multipart/mixed") else 1


def _parts(body: bytes, content_type: str) -> Iterator[_Part]:
    said = _BOUNDARY.search(content_type)
    if said is None:
        raise Refusal(400, "0x80048d19", "The batch's Content-Type names no boundary.")
    edge = b"--" + said[1].encode()
    if edge + b"--" not in body:
        raise Refusal(400, "0x80048d19", "The batch is not terminated.")
    for piece in body.split(edge + b"--", 1)[0].split(edge)[1:]:
        headers, _, rest = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        yield _Part(_headers(headers), rest.removesuffix(b"\r\n"))


def _headers(text: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.decode().split("\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _operation(call: Call, part: _Part, made: Mapping[str, str] | None = None) -> Call:
    """Read one operation; `made` is what `$1` and its like stand for."""
    head, separator, body = part.body.partition(b"\r\n\r\n")
    first, _, headers = head.partition(b"\r\n")
    said = first.decode().split(" ")
    if len(said) != 3 or not separator:  # the blank line after the request's head matters
        raise Refusal(400, "0x80048d19", "An operation of the batch is not a request.")
    for name, address in (made or {}).items():
        body = body.replace(f'"{name}"'.encode(), f'"{address}"'.encode())
    if re.search(rb'"\$\d+"', body):
        raise Refusal(400, "0x80048d19", "Content-ID Reference does not exist in the batch context.")
    target = urlsplit(said[1])
    resource = unquote(target.path).rpartition("/api/data/")[2].partition("/")[2] or unquote(target.path).lstrip("/")
    query = dict(parse_qsl(target.query, keep_blank_values=True))
    return Call(method=said[0], resource=resource, query=query, headers=_headers(headers), body=body, root=call.root)


def _written(response: Response, id: str | None) -> bytes:
    head = f"Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n{f'Content-ID: {id}' + chr(13) + chr(10) if id else ''}\r\n"
    words = {200: "OK", 201: "Created", 204: "No Content", 400: "Bad Request", 404: "Not Found", 412: "Precondition Failed"}
    line = f"HTTP/1.1 {response.status_code} {words.get(response.status_code, 'Error')}\r\n"
    headers = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items() if name != "content-length")
    return f"{head}{line}{headers}\r\n".encode() + bytes(response.body) + b"\r\n"

"""How Mailchimp's sandbox is asked and answers: problem documents, pages, `fields` and `exclude_fields`."""

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.mailchimp_audience import Refused, invalid
from sandbox.table import Row

FIELDS = frozenset({"fields", "exclude_fields"})
PAGED = FIELDS | {"count", "offset"}
_PAGE, _DEFAULT = 1000, 10
_ERRORS = "https://mailchimp.com/developer/marketing/docs/errors/"


def problem(status: int, title: str, detail: str, fields: Iterable[tuple[str, str]] = ()) -> Response:
    body: Row = {"type": _ERRORS, "title": title, "status": status, "detail": detail, "instance": str(uuid.uuid4())}
    if errors := [{"field": field, "message": message} for field, message in fields]:
        body["errors"] = errors
    return Response(orjson.dumps(body), status_code=status, media_type="application/problem+json; charset=utf-8")


def links(path: str) -> list[Row]:
    return [{"rel": "self", "href": f"https://us19.api.mailchimp.com/3.0{path}", "method": "GET"}]


def known(request: Request, names: frozenset[str]) -> None:
    if unknown := sorted(request.query_params.keys() - names):
        raise invalid(unknown[0], "This query parameter is not part of the schema.")


def paging(request: Request) -> tuple[int, int]:
    """Return offset and count."""
    found = []
    for name, default, most in (("offset", 0, 10_000_000), ("count", _DEFAULT, _PAGE)):
        said = request.query_params.get(name, str(default))
        if not said.isdigit() or int(said) > most:
            raise invalid(name, f"This value should be {most} or less.")
        found.append(int(said))
    return found[0], found[1]


async def said_in(request: Request) -> Row:
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise Refused(400, "JSON Parse Error", "We encountered an unspecified JSON parsing error.") from None
    if not isinstance(body, dict):
        raise invalid("", "Schema describes object, found other instead")
    return body


def projected(request: Request, body: Row) -> Response:
    """Answer with `fields` only, or without `exclude_fields`; both reach below by dots, and through lists."""
    said = request.query_params
    if "fields" in said:
        body = _picked(body, _tree(said["fields"]))
    elif "exclude_fields" in said:
        body = _dropped(body, _tree(said["exclude_fields"]))
    return json_response(body)


def _tree(names: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name in names.split(","):
        place = tree
        for step in name.strip().split("."):
            place = place.setdefault(step, {})
    return tree


def _picked(value: Any, tree: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_picked(each, tree) for each in value]
    if not tree or not isinstance(value, dict):
        return value
    return {name: _picked(value[name], below) for name, below in tree.items() if name in value}


def _dropped(value: Any, tree: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_dropped(each, tree) for each in value]
    if not isinstance(value, dict):
        return value
    kept = ((name, each) for name, each in value.items() if name not in tree or tree[name])
    return {name: _dropped(each, tree[name]) if name in tree else each for name, each in kept}

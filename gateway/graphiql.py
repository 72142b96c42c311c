"""GraphiQL for browsers, with every asset served by us: the page works without any other host."""

import html
import json
from collections.abc import Sequence
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

_ASSETS = "/graphql/assets"
_STATIC = Path(__file__).parent / "static" / "graphiql"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>customer360</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="{assets}/graphiql.min.css"><link rel="stylesheet" href="{assets}/page.css">
</head>
<body>
<div id="graphiql" data-tabs="{tabs}"><p>Loading GraphiQL…</p></div>
<script src="{assets}/react.production.min.js"></script><script src="{assets}/react-dom.production.min.js"></script>
<script src="{assets}/graphiql.min.js"></script><script src="{assets}/page.js"></script>
</body>
</html>
"""


def wants_page(request: Request) -> bool:
    """Tell whether a browser asks for the page: HTML is what it wants first, and it brings no query."""
    first = request.headers.get("accept", "").partition(",")[0].partition(";")[0].strip().lower()
    return request.method == "GET" and "query" not in request.query_params and first == "text/html"


def page(tabs: Sequence[str]) -> HTMLResponse:
    """Return the page; each of `tabs` is an example query."""
    said = html.escape(json.dumps([{"query": query} for query in tabs]))
    return HTMLResponse(_PAGE.format(assets=_ASSETS, tabs=said), headers={"content-security-policy": _POLICY})


def assets() -> Mount:
    return Mount(_ASSETS, StaticFiles(directory=_STATIC))

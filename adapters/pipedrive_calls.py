"""How Pipedrive is called: what each call costs in tokens, pages by cursor, and records by id as cheaply as they come."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import chain

from adapters.base import Api, Request, answer_or_none, batches
from model.errors import ProtocolError
from model.records import Row

PAGE, IDS = 500, 100
SINGLES = 10  # a list costs as much as ten single reads


def request(
    operation: str, path: str, parameters: Mapping[str, str] | None = None, *, cost: float, search: int = 0, method: str = "GET",
    body: Row | None = None, safe: bool = True,
) -> Request:  # fmt: skip
    """Args:
    cost: tokens of the company's daily budget.
    search: calls that count against the limit of searches too.
    """
    taken = {"daily": cost, **({"search": float(search)} if search else {})}
    return Request(
        operation=operation, path=path, method=method, params=list((parameters or {}).items()), json=body, cost=taken, safe=safe
    )


async def by_id(api: Api, operation: str, path: str, ids: Sequence[str], parameters: Mapping[str, str]) -> dict[str, Row]:
    """Return the live ones among these by id: a batch of fewer than 10 as single reads at 1 token each, others at 10 tokens a batch."""

    async def some(part: Sequence[str]) -> list[Row]:
        if len(part) < SINGLES:
            asked = (one_or_none(api, request(operation, f"{path}/{id}", parameters, cost=1)) for id in part)
            return list(chain.from_iterable(await asyncio.gather(*asked)))
        return await listed(api, operation, path, {**parameters, "ids": ",".join(part)}, size=IDS)

    numbers = [id for id in ids if id.isdigit()]
    parts = await asyncio.gather(*(some(part) for part in batches(numbers, IDS)))
    return {str(row["id"]): row for row in chain.from_iterable(parts) if not row.get("is_deleted")}


async def one_or_none(api: Api, asked: Request) -> list[Row]:
    """Return the record in a list, an empty one where there is none."""
    answer = await answer_or_none(api, asked)
    return [answer.json()["data"]] if answer is not None else []


async def listed(
    api: Api, operation: str, path: str, parameters: Mapping[str, str] | None = None, *, cost: float = 10, search: int = 0, size: int = PAGE,
) -> list[Row]:  # fmt: skip
    """Return a whole list, page by page."""
    found: list[Row] = []
    cursor: str | None = None
    while True:
        asked = {**(parameters or {}), "limit": str(size)}
        rows, following = await page(api, operation, path, asked, cursor, cost=cost, search=search)
        found += rows
        if following is None:
            return found
        if following == cursor:
            raise ProtocolError(f"pipedrive: a page of {operation} does not go on")
        cursor = following


async def page(
    api: Api, operation: str, path: str, parameters: Mapping[str, str], cursor: str | None, *, cost: float = 10, search: int = 0,
) -> tuple[list[Row], str | None]:  # fmt: skip
    """Return one page and the cursor of the next; of a search, its items."""
    asked = {**parameters, **({"cursor": cursor} if cursor else {})}
    body = (await api.send(request(operation, path, asked, cost=cost, search=search))).json()
    data = body["data"] or []
    rows: list[Row] = data["items"] if isinstance(data, dict) else data
    return rows, (body.get("additional_data") or {}).get("next_cursor")

"""Who asks."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from model.errors import CallerUnknownError
from store.callers import CallerRows

ALL_SCOPES = ("read", "write", "raw:read", "operate", "admin")
log = logging.getLogger(__name__)

REVIEW = 30.0  # seconds after which a key that was revoked ends what it still follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    workspace: str
    name: str
    scopes: frozenset[str]


DEMO = Caller(workspace="default", name="demo", scopes=frozenset(ALL_SCOPES))


async def identified(headers: Mapping[str, str], rows: CallerRows, *, require_key: bool) -> Caller:
    """Return the caller whose API key the request carries.

    Args:
        headers: by lower-case name.

    Raises:
        CallerUnknownError: there is none, or it is not (any more) ours.
    """
    if not require_key:
        return DEMO
    scheme, _, given = headers.get("authorization", "").partition(" ")
    key = given.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not key:
        raise CallerUnknownError("an API key is required: Authorization: Bearer c360_…")
    row = await rows.find(key)
    if row is None:
        raise CallerUnknownError("this API key is not known, or was revoked")
    return Caller(workspace=row.workspace, name=row.name, scopes=frozenset(row.scopes))


async def until_unknown(recognise: Callable[[], Awaitable[Caller]]) -> None:
    """Return when the caller's key is not ours any more."""
    while True:
        await asyncio.sleep(REVIEW)
        try:
            await recognise()
        except CallerUnknownError:
            return
        except Exception as error:  # noqa: BLE001 - a database in trouble says nothing about the key
            log.warning("a key could not be looked at", extra={"error.type": type(error).__name__})

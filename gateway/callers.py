"""Who asks."""

from collections.abc import Mapping
from dataclasses import dataclass

from model.errors import CallerUnknownError
from store.callers import CallerRows

ALL_SCOPES = ("read", "write", "raw:read", "operate", "admin")


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

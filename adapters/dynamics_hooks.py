"""Webhooks of Dataverse as it keeps them: one service endpoint for an address, and a step for each table and message.

Facts from Microsoft's pages "Register a webhook" and the entity reference of serviceendpoint, sdkmessage, sdkmessagefilter and
sdkmessageprocessingstep. The endpoint's key cannot be read back, so its description holds a digest of it. An application user needs
the privileges of a system customizer for this.

An administrator does the same by the plug-in registration tool: a new webhook with our address, authentication "WebhookKey" and the
secret as its value; then steps, asynchronous and post-operation, for Create, Update and Delete of contact, account, lead and opportunity,
and for Merge of the first three. The vendor sends to ports 80 and 443 only.
"""

import hashlib
import hmac
from typing import Any

from adapters import dynamics_metadata as metadata
from adapters.base import Api, Request, answer_or_none
from adapters.changes import Watch
from adapters.dynamics_rows import quoted
from model.errors import ProtocolError
from model.records import Row

_TABLES = ("contact", "account", "lead", "opportunity")
STEPS = tuple(
    (message, table)
    for table in _TABLES
    for message in ("Create", "Update", "Delete", "Merge")
    if (message, table) != ("Merge", "opportunity")
)
_WEBHOOK, _KEY, _JSON = 8, 4, 2  # contract, authtype, messageformat
_NAME = "Customer360"


async def watched(api: Api, url: str, secret: str, *, root: str) -> list[Watch]:
    """Two calls when all is well; one for an endpoint that is missing or has another key, two and one a step for steps that are missing."""
    label = f"{_NAME} {hmac.digest(secret.encode(), b'customer360 webhooks', hashlib.sha256).hex()[:32]}"
    found = await _endpoints(api, url, root)
    facts = {
        "name": _NAME, "url": url, "contract": _WEBHOOK, "authtype": _KEY, "authvalue": secret, "messageformat": _JSON, "description": label,
    }  # fmt: skip
    if not found:
        endpoint = await _made(api, f"{root}/serviceendpoints", facts, "serviceendpointid")
    else:
        endpoint = str(found[0]["serviceendpointid"])
        for other in found[1:]:  # made by another process at the same time, or by a call whose answer was lost
            await _removed(api, str(other["serviceendpointid"]), root)
        if found[0].get("description") != label:
            await api.send(_request("watch", f"{root}/serviceendpoints({endpoint})", method="PATCH", json=facts, match=True))
    steps = await _steps(api, endpoint, root)
    there = {(each["sdkmessageid"]["name"], each["sdkmessagefilterid"]["primaryobjecttypecode"]): each for each in steps}
    missing = [each for each in STEPS if each not in there]
    filters = await _filters(api, root) if missing else {}
    watches = []
    for each in STEPS:
        step = there.get(each)
        if step is None:
            watches.append(Watch(native_id=await _step(api, endpoint, each, filters[each], root)))
            continue
        id = str(step["sdkmessageprocessingstepid"])
        if step["statecode"] != 0:  # someone disabled it
            on = {"statecode": 0, "statuscode": 1}
            await api.send(_request("watch", f"{root}/sdkmessageprocessingsteps({id})", method="PATCH", json=on, match=True))
        watches.append(Watch(native_id=id))
    return watches


async def unwatched(api: Api, url: str, *, root: str) -> int:
    """One call, and for each endpoint one more and one a step; the steps first, since they hold the endpoint."""
    return sum([await _removed(api, str(each["serviceendpointid"]), root) for each in await _endpoints(api, url, root)])


async def _removed(api: Api, endpoint: str, root: str) -> int:
    steps = await _steps(api, endpoint, root)
    gone = [f"sdkmessageprocessingsteps({each['sdkmessageprocessingstepid']})" for each in steps]
    for path in (*gone, f"serviceendpoints({endpoint})"):
        await answer_or_none(api, _request("unwatch", f"{root}/{path}", method="DELETE"))
    return len(steps)


async def _endpoints(api: Api, url: str, root: str) -> list[Row]:
    """Return the endpoints of an address, the oldest first."""
    said = {
        "$select": "serviceendpointid,url,description", "$filter": f"contract eq {_WEBHOOK} and url eq {quoted(url)}", "$orderby": "createdon asc",
    }  # fmt: skip
    rows = await _rows(api, f"{root}/serviceendpoints", said)
    return [row for row in rows if row["url"] == url]  # the system compares without case


async def _steps(api: Api, endpoint: str, root: str) -> list[Row]:
    said = {
        "$select": "sdkmessageprocessingstepid,statecode", "$filter": f"_eventhandler_value eq {endpoint}",
        "$expand": "sdkmessageid($select=name),sdkmessagefilterid($select=primaryobjecttypecode)",
    }  # fmt: skip
    rows = await _rows(api, f"{root}/sdkmessageprocessingsteps", said)
    return [row for row in rows if row["sdkmessageid"] and row["sdkmessagefilterid"]]


async def _filters(api: Api, root: str) -> dict[tuple[str, str], Row]:
    """Return which message of which table has which numbers; they differ from one environment to the next."""
    tables = " or ".join(f"primaryobjecttypecode eq '{each}'" for each in _TABLES)
    messages = " or ".join(f"sdkmessageid/name eq '{each}'" for each in dict.fromkeys(message for message, _ in STEPS))
    said = {
        "$select": "sdkmessagefilterid,primaryobjecttypecode", "$filter": f"({tables}) and ({messages})", "$expand": "sdkmessageid($select=name)",
    }  # fmt: skip
    rows = await _rows(api, f"{root}/sdkmessagefilters", said)
    found = {(row["sdkmessageid"]["name"], row["primaryobjecttypecode"]): row for row in rows}
    if not found.keys() >= set(STEPS):
        raise ProtocolError("dynamics: the environment lacks a message of a table")
    return found


async def _step(api: Api, endpoint: str, step: tuple[str, str], filter: Row, root: str) -> str:
    message, table = step
    facts = {
        "name": f"{_NAME}: {message} of {table}", "mode": 1, "stage": 40, "rank": 1, "supporteddeployment": 0, "asyncautodelete": True,
        "eventhandler_serviceendpoint@odata.bind": f"/serviceendpoints({endpoint})",
        "sdkmessageid@odata.bind": f"/sdkmessages({filter['sdkmessageid']['sdkmessageid']})",
        "sdkmessagefilterid@odata.bind": f"/sdkmessagefilters({filter['sdkmessagefilterid']})",
    }  # fmt: skip
    return await _made(api, f"{root}/sdkmessageprocessingsteps", facts, "sdkmessageprocessingstepid")


async def _made(api: Api, path: str, facts: Row, id: str) -> str:
    # Not safe to send again: names need not be unique, and a second endpoint would tell everything twice.
    request = _request("watch", path, method="POST", json=facts, prefer="return=representation", safe=False)
    return str((await api.send(request)).json()[id])


async def _rows(api: Api, path: str, said: dict[str, str]) -> list[Row]:
    rows: list[Row] = (await api.send(_request("watch.list", path, params=list(said.items())))).json()["value"]
    return rows


def _request(operation: str, path: str, *, match: bool = False, prefer: str = "", **more: Any) -> Request:
    headers = {**metadata.HEADERS, **({"If-Match": "*"} if match else {}), **({"Prefer": prefer} if prefer else {})}
    return Request(operation=operation, path=path, headers=headers, cost=metadata.COST, **more)


__all__ = ["STEPS", "unwatched", "watched"]

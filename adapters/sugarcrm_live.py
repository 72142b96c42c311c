"""What Sugar tells by itself: web logic hooks, which cron sends with the job queue, up to a minute after a change.

Facts from the Sugar Developer Guide (web logic hooks) and the fields of the module WebLogicHooks, which administrators may write by REST. Nothing
is signed and no header can be set, so a secret of ours stands in the query of the address. A delivery holds the whole record: nothing of it is
used but the bean, the id, the time and the event. A job whose call failed counts as done, so it is not repeated: the feed tells it. Unverified: what
the module answers to a user who is no administrator (taken as a refusal).

What links records without saving one of them calls no hook of these; it is told where it moves `date_modified`, by the feed.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlencode

import orjson

from adapters.base import Api, Request, Response
from adapters.changes import Change, Delivery, Feed, Heard, Hint, Push, Watch, digest_of, matches
from mapping.convert import instant
from model.errors import ProtocolError, SignatureError, SourceError
from model.records import Kind, Row

# Rows carry the time at which their request began to save them; a bulk call or an import saves for minutes.
FEED = Feed(overlap=120.0, deletes=True)
PUSH = Push(kinds=frozenset({"contact", "lead", "account", "deal"}), secret="ours", delay=60.0)
_PARAM = "secret"
_BEANS: Mapping[str, Kind] = {"Contact": "contact", "Lead": "lead", "Account": "account", "Opportunity": "deal"}
_MODULES = ("Contacts", "Leads", "Accounts", "Opportunities")
_EVENTS = ("after_save", "after_delete")
_PAGE, _BULK = 200, 20


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a delivery by the secret in its address, and read which record it is about."""
    said = delivery.query.get(_PARAM, "")
    if not said or not matches(said, *secrets):
        raise SignatureError("a web logic hook without the right secret")
    try:
        body = orjson.loads(delivery.body)
    except orjson.JSONDecodeError as error:
        raise ProtocolError("a web logic hook holds no JSON") from error
    if not isinstance(body, dict):
        raise ProtocolError("a web logic hook holds no object")
    kind, event = _BEANS.get(str(body.get("bean"))), body.get("event")
    if kind is None or event not in _EVENTS:
        return Heard()
    row = body["data"] if isinstance(body.get("data"), dict) else {}
    id = row.get("id")
    if not isinstance(id, str) or not 0 < len(id) <= 36:
        raise ProtocolError("a web logic hook names no record")
    # Nothing names an event. What is sent again is the same to the letter; two edits within a second differ in what they changed.
    change = Change(kind=kind, native_id=id, op="DELETED" if event == "after_delete" else "CHANGED", at=_at(row))
    return Heard(hints=[Hint(id=digest_of(delivery.body), change=change)])


def _at(row: Row) -> datetime | None:
    said = row.get("date_modified")
    try:
        return instant(said) if isinstance(said, str) else None
    except ValueError:
        return None


# ---- hooks ----


class Sugar(Protocol):
    """What of the adapter is needed here."""

    async def bulk(self, api: Api, operation: str, calls: Sequence[Row], *, safe: bool) -> list[Response]: ...

    def classify(self, response: Response) -> SourceError | None: ...


async def watched(sugar: Sugar, api: Api, url: str, secret: str, *, root: str) -> list[Watch]:
    """One list; where something is missing, carries another secret or is there twice, a bulk call for it all."""
    address = f"{url}?{urlencode({_PARAM: secret})}"
    wanted = [(module, event) for module in _MODULES for event in _EVENTS]
    found: dict[tuple[str, str], Row] = {}
    spare: list[Row] = []
    # Those with the right address first, then by id: every process keeps the same ones.
    for hook in sorted(await _hooks(api, url, root=root), key=lambda each: (each["url"] != address, str(each["id"]))):
        of = (str(hook["webhook_target_module"]), str(hook["trigger_event"]))
        if of in wanted and of not in found:
            found[of] = hook
        else:
            spare.append(hook)
    calls = [_call("DELETE", each["id"]) for each in spare]
    missing = [of for of in wanted if of not in found or not _good(found[of], address)]
    for of in missing:
        module, event = of
        data = {
            "name": "Customer360",
            "webhook_target_module": module,
            "trigger_event": event,
            "request_method": "POST",
            "url": address,
        }
        calls.append(_call("PUT", found[of]["id"], data) if of in found else _call("POST", None, data))
    answers = await _sent(sugar, api, "watch", calls)
    made = {of: answer.json() for of, answer in zip(missing, answers[len(spare) :], strict=True)}
    return [Watch(native_id=str({**found, **made}[of]["id"])) for of in wanted]


def _good(hook: Row, address: str) -> bool:
    return bool(hook["url"] == address and hook.get("request_method") == "POST")


async def unwatched(sugar: Sugar, api: Api, url: str, *, root: str) -> int:
    """One list, and a bulk call where there are hooks."""
    hooks = await _hooks(api, url, root=root)
    await _sent(sugar, api, "unwatch", [_call("DELETE", hook["id"]) for hook in hooks])
    return len(hooks)


async def _hooks(api: Api, url: str, *, root: str) -> list[Row]:
    """Return the hooks to an address, whatever secret stands in it."""
    found: list[Row] = []
    offset = 0
    while offset != -1:
        body = {
            "filter": [{"url": {"$starts": url}}], "fields": "id,url,webhook_target_module,trigger_event,request_method", "max_num": _PAGE,
            "offset": offset, "order_by": "id:asc",
        }  # fmt: skip
        said = (
            await api.send(Request(operation="watch.list", method="POST", path=f"{root}/WebLogicHooks/filter", json=body))
        ).json()
        found += [hook for hook in said["records"] if str(hook.get("url")).partition("?")[0] == url]
        if said["next_offset"] != -1 and said["next_offset"] <= offset:
            raise ProtocolError("a page of web logic hooks does not go on")
        offset = said["next_offset"]
    return found


async def _sent(sugar: Sugar, api: Api, operation: str, calls: Sequence[Row]) -> list[Response]:
    """Send calls in bulk; a hook that is gone already is deleted."""
    answers: list[Response] = []
    for start in range(0, len(calls), _BULK):
        some = calls[start : start + _BULK]
        for call, answer in zip(some, await sugar.bulk(api, operation, some, safe=False), strict=True):
            fault = sugar.classify(answer)
            if fault is not None and not (call["method"] == "DELETE" and fault.status == 404):
                raise fault
            answers.append(answer)
    return answers


def _call(method: str, id: Any, data: Mapping[str, Any] | None = None) -> Row:
    body = {"headers": ["Content-Type: application/json"], "data": orjson.dumps(data).decode()} if data else {}
    return {"url": "/WebLogicHooks" + (f"/{id}" if id is not None else ""), "method": method, **body}

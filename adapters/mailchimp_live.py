"""How Mailchimp tells what changed: webhooks of an audience, and lists of members by the time of the last change.

Facts from the vendor's guides "Sync Audience Data with Webhooks" and "Subscribe to webhooks" as third parties quote them, and from the
description of the API.

- Whoever makes a webhook since mid-2026 is told a signing secret, once; older ones and those of some accounts are not signed. So each of
  ours has a random word in its address besides, and that is the proof where the vendor gives none. A signature that is there must be
  right, whatever the address says.
- Deliveries name members by address. Their native id is `contact_id`, which deliveries do not tell: hints name the md5 of the address,
  which stands for a member in every path, and `Mailchimp.named` asks whose it is. An address that changed is no merge: the member stays.
- All sources of changes are wanted, those of the API too: other apps write there, and our own echoes are known from what we wrote.
- `fired_at` names no zone, so it is not taken for a time.

Not told by webhooks: whoever is added without being subscribed ("transactional"), and tags. Who is deleted for good leaves no trace: the
feed does not list them, and the address that a webhook may name is nobody's any more. Only comparing everything finds them.
Unverified: that archiving moves `last_changed`, how a webhook that was switched off for failing looks in the list (it is made anew when
it is not there).
"""

import asyncio
import hashlib
import hmac
import secrets as randomness
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from adapters.base import Adapter, Api, Request, answer_or_none
from adapters.changes import (
    Change,
    Changes,
    Delivery,
    Feed,
    Heard,
    Hint,
    Push,
    Watch,
    digest_of,
    matches,
    place_of,
    recent,
    scanned_changes,
)
from adapters.mailchimp_writing import hashed
from model.errors import ProtocolError, SignatureError
from model.records import Row

FEED = Feed(overlap=60.0, deletes=True, interval=30.0, longest=300.0)
PUSH = Push(kinds=frozenset({"contact"}), secret="issued", delay=10.0)
_HEADER = "x-mailchimp-signature"
_WITHIN = 300.0  # seconds
_FEW, _LATEST = 3, 1000
_WORD = "token"  # the parameter of an address that holds its random word
_EVENTS = {"subscribe": True, "unsubscribe": True, "profile": True, "cleaned": True, "upemail": True, "campaign": False}
_SOURCES = {"user": True, "admin": True, "api": True}
_ADDRESS: Mapping[str, str] = {
    "subscribe": "data[email]", "unsubscribe": "data[email]", "profile": "data[email]", "cleaned": "data[email]", "upemail": "data[new_email]",
}  # fmt: skip


# ---- the feed ----


class _Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    Attributes:
        edited, archived: the places in the two lists, as `scanned_changes` has them.
        edits_told: this pass has told all edits, and is among the archived.
    """

    edited: str
    archived: str
    edits_told: bool = False


async def changes(
    adapter: Adapter, archive: Adapter, api: Api, cursor: str | None, fields: Sequence[str], *, now: datetime
) -> Changes:
    """Return a page of those who changed, and once these are told, a page of those who were archived: two lists a quiet pass.

    Args:
        archive: lists the archived members in the place of the others.
    """
    if cursor is None:
        # Archived since the youngest of both lists: by the vendor's clock, and nobody who was archived long before.
        youngest = [(await scanned_changes(each, api, "contact", None, fields, now=now)).cursor for each in (adapter, archive)]
        return Changes(changes=[], cursor=_encoded(_Place(youngest[0], max(youngest, key=lambda each: place_of(each).seen))))
    place = msgspec.json.decode(cursor, type=_Place)
    told: list[Change] = []
    if not place.edits_told:
        edits = await scanned_changes(adapter, api, "contact", place.edited, fields, now=now)
        place, told = msgspec.structs.replace(place, edited=edits.cursor), edits.changes
        if edits.more:
            return Changes(changes=told, cursor=_encoded(place), more=True)
    gone = await scanned_changes(archive, api, "contact", place.archived, (), now=now)
    told = told + [Change(kind="contact", native_id=each.native_id, op="DELETED", at=each.at) for each in gone.changes]
    return Changes(changes=told, cursor=_encoded(_Place(place.edited, gone.cursor, gone.more)), more=gone.more)


def _encoded(place: _Place) -> str:
    return msgspec.json.encode(place).decode()


# ---- webhooks ----


def heard(delivery: Delivery, secrets: Sequence[str]) -> Heard:
    """Prove a delivery, and read it. See `Adapter.events`.

    The GET with which the vendor looks at an address while a webhook is made comes before there is a secret, and says nothing.
    """
    if delivery.method == "GET":
        return Heard()
    _prove(delivery, [each for each in secrets if each])
    try:
        said = dict(parse_qsl(delivery.body.decode(), keep_blank_values=True))
    except ValueError as error:
        raise ProtocolError("a webhook holds no form") from error
    what = said.get("type", "")
    if not what:
        raise ProtocolError("a webhook does not tell what it is of")
    if what not in _ADDRESS:
        return Heard()
    address = said.get(_ADDRESS[what], "").strip()
    if "@" not in address:
        raise ProtocolError("a webhook names no member")
    gone = what == "unsubscribe" and said.get("data[action]") == "delete"
    # There is no id, and the same member may change twice in the second that `fired_at` names: what is sent again is the same in all.
    event = digest_of(delivery.body.hex())
    return Heard(
        hints=[Hint(id=event, change=Change(kind="contact", native_id=hashed(address), op="DELETED" if gone else "CHANGED"))]
    )


def _prove(delivery: Delivery, secrets: Sequence[str]) -> None:
    if _HEADER not in delivery.headers:
        word = delivery.query.get(_WORD, "")
        if not word or not matches(word, *secrets):
            raise SignatureError("a webhook is neither signed nor sent to the address that we named")
        return
    parts = [part.strip().partition("=") for part in delivery.headers[_HEADER].split(",")]
    sent = next((value for name, _, value in parts if name == "t"), "")
    if not (sent.isascii() and sent.isdigit() and len(sent) <= 11):
        raise SignatureError("a webhook's signature tells no time")
    signed = sent.encode() + b"." + delivery.body
    wanted = [hmac.digest(each.encode(), signed, hashlib.sha256).hex() for each in secrets]
    if not any([matches(value, *wanted) for name, _, value in parts if name == "v1"]):  # noqa: C419 - all are compared
        raise SignatureError("a webhook's signature is wrong")
    if not recent(datetime.fromtimestamp(int(sent), tz=UTC), delivery.at, within=_WITHIN):
        raise SignatureError("a webhook was signed too long ago")


async def named(api: Api, members: str, names: Sequence[str]) -> list[str | None]:
    """One call a name, archived members too; of more than a few, one list of the latest changes tells most."""
    known: dict[str, str] = {}
    if len(names) > _FEW:
        asked = [
            ("sort_field", "last_changed"), ("sort_dir", "DESC"), ("count", str(_LATEST)), ("fields", "members.id,members.contact_id"),
        ]  # fmt: skip
        latest = (await api.send(Request(operation="contact.named", path=members, params=asked))).json()["members"]
        known = {row["id"]: row["contact_id"] for row in latest}

    async def one(name: str) -> str | None:
        if name in known:
            return known[name]
        request = Request(operation="contact.named", path=f"{members}/{name}", params=[("fields", "contact_id")])
        answer = await answer_or_none(api, request)
        return str(answer.json()["contact_id"]) if answer is not None else None

    return list(await asyncio.gather(*(one(name) for name in names)))


async def watched(api: Api, hooks: str, url: str) -> list[Watch]:
    """One list; one call more where there is no webhook of ours, where it does not send all, and for each that is one too many.

    The signing secret is told by the call that makes a webhook and by no other.

    Args:
        hooks: path of the audience's webhooks.
    """
    ours = await _ours(api, hooks, url)
    if not ours:
        word = randomness.token_urlsafe(24)
        body = {"url": f"{_before_word(url)}{word}", "events": _EVENTS, "sources": _SOURCES}
        # Sent again it would make a second one, whose secret alone would be known.
        made = (await api.send(Request(operation="watch", method="POST", path=hooks, json=body, safe=False))).json()
        return [Watch(native_id=str(made["id"]), secret=str(made.get("signing_secret") or word))]
    (hook, word), *others = ours
    await _ended(api, hooks, [each for each, _ in others])
    if hook.get("events") != _EVENTS or hook.get("sources") != _SOURCES:
        body = {"events": _EVENTS, "sources": _SOURCES}
        await api.send(Request(operation="watch", method="PATCH", path=f"{hooks}/{hook['id']}", json=body))
    return [Watch(native_id=str(hook["id"]), secret=None if hook.get("signing_enabled") else word)]


async def unwatched(api: Api, hooks: str, url: str) -> int:
    """One list, and one call for each webhook of ours."""
    ours = await _ours(api, hooks, url)
    await _ended(api, hooks, [hook for hook, _ in ours])
    return len(ours)


async def _ours(api: Api, hooks: str, url: str) -> list[tuple[Row, str]]:
    """Return the webhooks to this address with their random words."""
    found = (await api.send(Request(operation="watch.list", path=hooks))).json()["webhooks"]
    start = _before_word(url)
    return [(hook, hook["url"].removeprefix(start)) for hook in found if hook["url"].startswith(start)]


async def _ended(api: Api, hooks: str, some: Sequence[Mapping[str, Any]]) -> None:
    asked = [Request(operation="unwatch", method="DELETE", path=f"{hooks}/{hook['id']}") for hook in some]
    await asyncio.gather(*(answer_or_none(api, each) for each in asked))


def _before_word(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{_WORD}="

"""Writing to Sugar: bulk calls of single writes, each with an outcome of its own.

From the Sugar Developer Guide (`/bulk`, `/<module>` POST, PUT and DELETE, `/<module>/:record/link`, API exceptions). Sugar itself compares the
time of the last change on an update (`X-TIMESTAMP`, whole seconds, so two changes within one second look the same), which goes out
as a call of its own: that a bulk call hands the header on is not documented. A delete has no such comparison: the record is read just before.
So are addresses, whose list is written whole: one that somebody adds in between is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

import orjson

from adapters.base import Api, Outcome, Request, Response, Write, batches
from adapters.writing import failed, settled
from mapping.convert import boolean, instant
from model.errors import ProtocolError, RejectedError, SourceError, StaleVersionError
from model.records import FieldMeta, Kind, Row

BULK = 20  # requests in one bulk call, which Sugar runs one after another
LINKS: Mapping[tuple[Kind, Kind], str] = {
    ("contact", "deal"): "opportunities",
    ("deal", "contact"): "contacts",
}  # (of, kind) → link
CURRENCY = "currency_code"  # rows name their currency by the instance's own id: the ISO code stands beside it
_METHODS = {"create": "POST", "update": "PUT", "delete": "DELETE"}


class Sugar(Protocol):
    """What of the adapter is needed here."""

    async def read(self, api: Api, kind: Kind, ids: Sequence[str], fields: Sequence[str]) -> list[Row | None]: ...

    async def bulk(self, api: Api, operation: str, calls: Sequence[Row], *, safe: bool) -> list[Response]: ...

    def classify(self, response: Response) -> SourceError | None: ...


class Writer:
    """
    Args:
        root: what a single call's path begins with.
        modules: kind → Sugar's name for it.
    """

    def __init__(self, sugar: Sugar, *, root: str, modules: Mapping[Kind, str]) -> None:
        self._sugar, self._root, self._modules = sugar, root, modules

    async def write(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Outcome]:
        """ceil(rows / 20) bulk calls, creations apart from the rest; one call each for updates of a named version; one read where
        addresses change or a named version is deleted; ceil(rows / 20) more where rows are tied to others."""
        plans = await self._planned(api, kind, writes)
        outcomes = {at: plan for at, plan in enumerate(plans) if isinstance(plan, Outcome)}
        bodies = {at: plan for at, plan in enumerate(plans) if not isinstance(plan, Outcome)}

        async def part(call: Callable[[Sequence[int]], Awaitable[list[Outcome]]], places: Sequence[int]) -> None:
            found = await settled([writes[at] for at in places], lambda _: call(places))
            outcomes.update(zip(places, found, strict=True))

        async def bulk(places: Sequence[int]) -> list[Outcome]:
            calls = [
                {"url": self._path(kind, writes[at]), "method": _METHODS[writes[at].verb], **_data(bodies[at])} for at in places
            ]
            safe = all(writes[at].repeatable for at in places)
            answers = await self._sugar.bulk(api, f"{kind}.write", calls, safe=safe)
            return [self._outcome(writes[at], answer) for at, answer in zip(places, answers, strict=True)]

        async def alone(places: Sequence[int]) -> list[Outcome]:
            [write] = [writes[at] for at in places]
            answer = await api.send(Request(
                operation=f"{kind}.update", method="PUT", path=f"{self._root}{self._path(kind, write)}", json=bodies[places[0]],
                headers={"X-TIMESTAMP": write.if_version or ""}, safe=False,
            ))  # fmt: skip
            return [self._outcome(write, answer)]

        versioned = [at for at in bodies if writes[at].verb == "update" and writes[at].if_version]
        again = [at for at in bodies if writes[at].repeatable]
        once = [at for at in bodies if at not in {*versioned, *again}]
        parts = [part(bulk, some) for group in (once, again) for some in batches(group, BULK)]
        await asyncio.gather(*parts, *(part(alone, [at]) for at in versioned))
        return await self._tied(api, kind, writes, [outcomes[at] for at in range(len(writes))])

    async def _planned(self, api: Api, kind: Kind, writes: Sequence[Write]) -> list[Row | Outcome]:
        """Return the body of each write, or its outcome where nothing is to be sent for it."""
        looked_at = [each.native_id for each in writes if each.native_id and _needs_the_row(each)]
        try:
            rows = await self._sugar.read(api, kind, looked_at, ["email"] if any("email" in each.row for each in writes) else [])
            known = (await api.described(kind)).fields if kind == "deal" and any(each.row for each in writes) else {}
        except SourceError as error:  # nothing was sent
            return [Outcome(state="REJECTED", native_id=each.native_id, error=error) for each in writes]
        before = {row["id"]: row for row in rows if row is not None}
        return [_planned(each, before.get(each.native_id or ""), known) for each in writes]

    def _path(self, kind: Kind, write: Write) -> str:
        return f"/{self._modules[kind]}" + (f"/{write.native_id}" if write.native_id else "")

    def _outcome(self, write: Write, answer: Response) -> Outcome:
        fault = self._sugar.classify(answer)
        if fault is not None:
            if write.verb == "delete" and fault.status == 404:
                return Outcome(state="UNCHANGED", native_id=write.native_id)
            return replace(failed(fault), native_id=write.native_id)
        row = answer.json()
        if not isinstance(row, dict) or not row.get("id"):
            return failed(ProtocolError("a write was answered without the record's id", status=answer.status))
        return Outcome(state="APPLIED", native_id=str(row["id"]))

    async def _tied(self, api: Api, kind: Kind, writes: Sequence[Write], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Tie what was written. A record that is written and not tied is UNKNOWN: neither all is done nor nothing."""
        after = list(outcomes)
        ties = [
            (at, LINKS[kind, other], ids)
            for at, (each, outcome) in enumerate(zip(writes, outcomes, strict=True))
            if outcome.state == "APPLIED"
            for other, ids in each.links.items()
            if ids
        ]
        for some in batches(ties, BULK):
            calls = [
                {"url": f"/{self._modules[kind]}/{outcomes[at].native_id}/link", "method": "POST", **_data({"link_name": link, "ids": list(ids)})}
                for at, link, ids in some
            ]  # fmt: skip
            faults: list[SourceError | None]
            try:
                faults = [self._sugar.classify(each) for each in await self._sugar.bulk(api, f"{kind}.tie", calls, safe=True)]
            except SourceError as error:
                faults = [error] * len(some)
            for (at, _, _), fault in zip(some, faults, strict=True):
                if fault is not None:
                    only_tied = writes[at].verb == "update" and not writes[at].row
                    after[at] = replace(after[at], state=failed(fault).state if only_tied else "UNKNOWN", error=fault)
        return after


def _needs_the_row(write: Write) -> bool:
    return "email" in write.row or (write.verb == "delete" and write.if_version is not None)


def _planned(write: Write, before: Row | None, known: Mapping[str, FieldMeta]) -> Row | Outcome:
    if write.verb == "update" and not write.row and not write.if_version:
        return Outcome(state="APPLIED" if any(write.links.values()) else "UNCHANGED", native_id=write.native_id)
    if write.verb == "delete" and write.if_version and before is not None:
        changed, seen = instant(before["date_modified"]), datetime.fromisoformat(write.if_version)
        if changed is not None and changed > seen:
            return Outcome(
                state="CONFLICT", native_id=write.native_id, error=StaleVersionError("the record was changed meanwhile")
            )
    row = {name: value for name, value in write.row.items() if name != CURRENCY}
    if "email" in row:
        row["email"] = _addresses(row["email"], (before or {}).get("email") or ())
    # Sugar passes over what it works out by itself: a deal's amount and stage, where revenue line items make it up.
    if own := [name for name in row if name in known and not known[name].writable]:
        return _refused(write, "the instance works this out by itself", own)
    if code := write.row.get(CURRENCY):
        ids = {each: id for id, each in known["currency_id"].options.items()}
        if code not in ids:
            return _refused(write, "the instance does not know this currency", (CURRENCY,))
        row["currency_id"] = ids[code]
    return row


def _refused(write: Write, reason: str, fields: Sequence[str]) -> Outcome:
    return Outcome(state="REJECTED", native_id=write.native_id, error=RejectedError(reason), fields=fields)


def _addresses(address: str | None, before: Sequence[Row]) -> list[Row]:
    """Return the whole list with another primary address: Sugar removes each one that a list leaves out."""
    same = [each for each in before if address and each["email_address"].lower() == address.lower()]
    others = [each for each in before if each not in same and not boolean(each.get("primary_address") or False)]
    first = [{**(same[0] if same else {}), "email_address": address, "primary_address": True}] if address else []
    return [*first, *others]


def _data(body: Row) -> Row:
    return {"headers": ["Content-Type: application/json"], "data": orjson.dumps(body).decode()} if body else {}

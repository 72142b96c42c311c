"""How records are written to Zoho: calls of up to 100 records of one verb, and a verdict for each of them."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

from adapters.base import Api, Outcome, Request, Write, batches, code_in
from adapters.writing import settled
from model.errors import DuplicateError, ProtocolError, RejectedError, SourceError, StaleVersionError, UnsupportedError
from model.records import Row

_BATCH = 100
_VERDICTS = frozenset({400})  # where each record was refused
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")
_PRIMARY = "Contact_Name"


class Records:
    """Writes to one module.

    Args:
        triggers: the org's automations that a write sets off; without a word of ours it would be all of them.
    """

    def __init__(self, api: Api, *, root: str, module: str, triggers: Sequence[str]) -> None:
        self._api, self._root, self._module, self._triggers = api, root, module, triggers

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        outcomes: list[Outcome | None] = [None] * len(writes)
        for verb in ("create", "update", "upsert", "delete"):
            chosen = [at for at, each in enumerate(writes) if each.verb == verb]
            for some in self._calls(writes, chosen):
                mine = [writes[at] for at in some]
                for at, outcome in zip(some, await settled(mine, getattr(self, f"_{verb}")), strict=True):
                    outcomes[at] = outcome
        done = [each for each in outcomes if each is not None]
        assert len(done) == len(writes), "one outcome per write"
        return [await self._tied(write, outcome) for write, outcome in zip(writes, done, strict=True)]

    def _calls(self, writes: Sequence[Write], chosen: Sequence[int]) -> Iterable[Sequence[int]]:
        """Split: what names a version goes alone, for the header that says so holds for a whole call."""
        alone = [at for at in chosen if writes[at].if_version is not None]
        yield from ([at] for at in alone)
        yield from batches([at for at in chosen if writes[at].if_version is None], _BATCH)

    async def _create(self, writes: Sequence[Write]) -> list[Outcome]:
        body = {"data": [self._row(each) for each in writes], "trigger": self._triggers}
        return await self._sent("create", "POST", self._module, writes, body)

    async def _upsert(self, writes: Sequence[Write]) -> list[Outcome]:
        body = {"data": [self._row(each) for each in writes], "duplicate_check_fields": ["Email"], "trigger": self._triggers}
        return await self._sent("upsert", "POST", f"{self._module}/upsert", writes, body)

    async def _update(self, writes: Sequence[Write]) -> list[Outcome]:
        body = {"data": [{**self._row(each), "id": each.native_id} for each in writes], "trigger": self._triggers}
        return await self._sent("update", "PUT", self._module, writes, body)

    async def _delete(self, writes: Sequence[Write]) -> list[Outcome]:
        if writes[0].if_version is not None:  # a comparison of ours could be overtaken
            raise UnsupportedError("the system compares versions on updates only")
        parameters = [
            ("ids", ",".join(str(each.native_id) for each in writes)),
            ("wf_trigger", str("workflow" in self._triggers).lower()),
        ]
        outcomes = await self._sent("delete", "DELETE", self._module, writes, None, params=parameters)
        return [_gone(write) if _is_missing(each) else each for write, each in zip(writes, outcomes, strict=True)]

    async def _sent(self, verb: str, method: str, path: str, writes: Sequence[Write], body: Any, **more: Any) -> list[Outcome]:
        answer = await self._api.send(
            Request(
                operation=f"{self._module.lower()}.{verb}", method=method, path=f"{self._root}/{path}", json=body,
                safe=all(each.repeatable for each in writes), answers=_VERDICTS, cost={"credits": (len(writes) - 1) // 10},
                headers={"If-Unmodified-Since": version} if (version := writes[0].if_version) is not None else {}, **more,
            )
        )  # fmt: skip
        verdicts = answer.json().get("data") if answer.body else None
        if not isinstance(verdicts, list) or len(verdicts) != len(writes):
            raise ProtocolError("answered without a verdict for each record", status=answer.status)
        return [_outcome(write, verdict) for write, verdict in zip(writes, verdicts, strict=True)]

    def _row(self, write: Write) -> Row:
        row = {name: _spelled(value) for name, value in write.row.items()}
        contacts = write.links.get("contact", ())
        # The first contact of a new deal is its primary one; later ones are added beside it, never in its place.
        return {**row, _PRIMARY: {"id": contacts[0]}} if contacts and write.verb == "create" else row

    async def _tied(self, write: Write, outcome: Outcome) -> Outcome:
        """Give the deal's other contacts a role in it. The deal is written in any case: what fails here is told beside that."""
        contacts = write.links.get("contact", ())[1 if write.verb == "create" else 0 :]
        if not contacts or outcome.state not in {"APPLIED", "UNCHANGED"} or outcome.native_id is None:
            return outcome
        try:
            found = await self._api.send(Request(operation="deal.roles", path=f"{self._root}/Contacts/roles"))
            role = min(found.json()["contact_roles"], key=lambda each: each["sequence_number"])
            await asyncio.gather(*(self._tie(str(outcome.native_id), id, role) for id in contacts))
        except SourceError as error:
            return Outcome(
                state=outcome.state, native_id=outcome.native_id, created=outcome.created, error=error, fields=("Contact_Roles",)
            )
        return outcome

    async def _tie(self, deal: str, contact: str, role: Row) -> None:
        path = f"{self._root}/Deals/{deal}/Contact_Roles/{contact}"
        body = {"data": [{"Contact_Role": {"id": role["id"], "name": role["name"]}}]}
        answer = await self._api.send(Request(operation="deal.tie", method="PUT", path=path, json=body, answers=_VERDICTS))
        verdict = answer.json()["data"][0]
        if verdict["status"] == "error":
            raise _refusal(verdict)


def _outcome(write: Write, verdict: Row) -> Outcome:
    details = verdict.get("details") or {}
    if verdict.get("status") != "error":
        created = {"insert": True, "update": False}.get(str(verdict.get("action"))) if write.verb == "upsert" else None
        return Outcome(state="APPLIED", native_id=str(details.get("id") or write.native_id), created=created)
    error = _refusal(verdict)
    name = details.get("api_name")
    return Outcome(
        state="CONFLICT" if isinstance(error, DuplicateError | StaleVersionError) else "REJECTED", native_id=write.native_id, error=error,
        fields=(name,) if isinstance(name, str) and name != "id" else (),
    )  # fmt: skip


def _refusal(verdict: Row) -> RejectedError:
    code, details = code_in(verdict.get("code")) or "UNKNOWN", verdict.get("details") or {}
    if code == "DUPLICATE_DATA":
        return DuplicateError("another record has this value", upstream_code=code)
    if code in {"ALREADY_MODIFIED", "RECORD_MODIFIED"}:
        return StaleVersionError("changed since that version", upstream_code=code)
    # The record itself is not there; a lookup that leads nowhere names its field.
    missing = (
        code == "INVALID_DATA"
        and ("api_name" not in details or details["api_name"] == "id")
        and "expected_data_type" not in details
    )
    return RejectedError(f"refused: {code}", status=404 if missing else 400, upstream_code=code)


def _is_missing(outcome: Outcome) -> bool:
    return outcome.state == "REJECTED" and outcome.error is not None and outcome.error.status == 404


def _gone(write: Write) -> Outcome:
    return Outcome(state="UNCHANGED", native_id=write.native_id)


def _spelled(value: Any) -> Any:
    """Times go with an offset and without fractions; what is nested are ids of lookups."""
    if isinstance(value, str) and (found := _MOMENT.fullmatch(value)):
        return f"{found[1]}{found[2].replace('Z', '+00:00')}"
    return value

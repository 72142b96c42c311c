"""How one record is written to Zendesk: a call each, since a job tells neither which key is taken nor, once its answer is lost, anything.

Facts from developer.zendesk.com (users, user identities, organizations, tickets, idempotency). A user's address is writable on
create only: an update adds a secondary one, which is then made the primary one. Nobody is mailed for being entered
(`skip_verify_email`). Not verified against Zendesk itself: what it answers to a write of a user who is deleted, so a user is looked
at before a delete, and one that comes back inactive counts as gone.
"""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from adapters.base import Api, Outcome, Request, Write
from adapters.writing import failed
from model.errors import ProtocolError, RejectedError, StaleVersionError
from model.records import Kind, Row

_NAMES: Mapping[Kind, str] = {
    "contact": "user",
    "account": "organization",
    "ticket": "ticket",
}  # what a record's body stands under
_NUMBERS = ("organization_id", "requester_id")


async def written(api: Api, kind: Kind, path: str, write: Write) -> Outcome:
    """Carry out one write.

    Args:
        path: of the list of the record's kind, such as "/api/v2/users".
    """
    name = _NAMES[kind]
    if write.verb == "delete":
        return await _deleted(api, kind, path, write.native_id or "")
    if write.verb == "upsert":
        return await _upserted(api, path, write)
    if write.verb == "create":
        headers = {"Idempotency-Key": secrets.token_hex(16)} if kind == "ticket" else {}
        asked = _request(f"{kind}.create", "POST", path, name, _created(kind, write.row), headers=headers, safe=bool(headers))
        return Outcome(state="APPLIED", native_id=str((await api.send(asked)).json()[name]["id"]), created=True)
    body = _body(write.row)
    if write.if_version is not None:
        body |= {"safe_update": True, "updated_stamp": _stamp(write.if_version)}
    if body.get("domain_names"):
        body["domain_names"] = await _domains(api, f"{path}/{write.native_id}", body["domain_names"])
    asked = _request(f"{kind}.update", "PUT", f"{path}/{write.native_id}", name, body, safe=write.repeatable)
    row = (await api.send(asked)).json()[name]
    if row.get("active") is False:
        return failed(RejectedError("there is no such user any more", status=404))
    await _made_primary(api, path, row, body.get("email"))
    return Outcome(state="APPLIED", native_id=str(row["id"]), created=False)


async def _upserted(api: Api, path: str, write: Write) -> Outcome:
    body = {**_body(write.row), "skip_verify_email": True}
    answer = await api.send(_request("contact.upsert", "POST", f"{path}/create_or_update", "user", body, safe=write.repeatable))
    row = answer.json()["user"]  # the address matched may be a secondary one, and stays that
    return Outcome(state="APPLIED", native_id=str(row["id"]), created=answer.status == 201)


async def _deleted(api: Api, kind: Kind, path: str, id: str) -> Outcome:
    gone = Outcome(state="UNCHANGED", native_id=id)
    try:
        if kind == "contact":
            row = (await api.send(Request(operation="contact.read", path=f"{path}/{id}"))).json()["user"]
            if row.get("active") is False:
                return gone
        await api.send(Request(operation=f"{kind}.delete", method="DELETE", path=f"{path}/{id}"))
    except RejectedError as error:
        if error.status == 404:
            return gone
        raise
    return Outcome(state="APPLIED", native_id=id)


async def _made_primary(api: Api, path: str, row: Row, email: str | None) -> None:
    """Make an address that an update added the user's primary one."""
    if not email or str(row.get("email") or "").lower() == email.lower():
        return
    identities = f"{path}/{row['id']}/identities"
    found = (await api.send(Request(operation="contact.identities", path=identities))).json()["identities"]
    mine = [each for each in found if each["type"] == "email" and each["value"].lower() == email.lower()]
    if not mine:
        raise ProtocolError("the address that was written is not among the user's")
    await api.send(Request(operation="contact.primary", method="PUT", path=f"{identities}/{mine[0]['id']}/make_primary"))


async def _domains(api: Api, path: str, wanted: Sequence[str]) -> list[str]:
    """Put a domain first among those that an organization has: what is written replaces them all."""
    row = (await api.send(Request(operation="account.read", path=path))).json()["organization"]
    return list(dict.fromkeys([*wanted, *row["domain_names"]]))


def _created(kind: Kind, row: Row) -> Row:
    body = _body(row)
    if kind == "contact":
        body["skip_verify_email"] = True
    if kind == "ticket":  # a ticket begins with a comment
        body["comment"] = {"body": body.get("subject") or "-"}
    return body


def _body(row: Row) -> Row:
    """Spell what is written as the API takes it: ids as numbers, domains as a list."""
    body = dict(row)
    for each in _NUMBERS:
        if body.get(each) is not None:
            body[each] = int(body[each])
    if "domain_names" in body:
        body["domain_names"] = [body["domain_names"]] if body["domain_names"] else []
    return body


def _stamp(version: str) -> str:
    """Return a record's version, its time of change, as Zendesk spells it."""
    try:
        return f"{datetime.fromisoformat(version).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    except ValueError as error:
        raise StaleVersionError("the ticket never had this version") from error


def _request(operation: str, method: str, path: str, name: str, body: Row, **more: Any) -> Request:
    return Request(operation=operation, method=method, path=path, json={name: body}, **more)

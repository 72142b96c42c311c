"""The messages of the environment that a webhook can be registered for, and the tables where endpoints and steps are kept."""

import uuid
from typing import Any

from sandbox.table import Field as Column
from sandbox.table import Row, Table

_SPACE = uuid.UUID("9ebdbb1b-ea3e-4b11-86a7-000a3a5473e8")
_STAMPS: Row = {"createdon": "2023-01-01T00:00:00Z", "modifiedon": "2023-01-01T00:00:00Z", "versionnumber": 800}
_TABLES = ("contact", "account", "lead", "opportunity", "systemuser")
_MESSAGES = ("Create", "Update", "Delete", "Merge", "Retrieve", "RetrieveMultiple", "Assign", "Win", "Lose")
_ONLY = {"Merge": {"contact", "account", "lead"}, "Win": {"opportunity"}, "Lose": {"opportunity"}}


def service_tables() -> dict[str, Table[Any]]:
    messages = {_id(name): name for name in _MESSAGES}
    filters = {
        _id(f"{message} {table}"): (message, table) for message in _MESSAGES for table in _TABLES if table in _ONLY.get(message, _TABLES)
    }  # fmt: skip
    handler = Column[Any](lambda _: None, lambda row: row["_eventhandler_value"])
    return {
        "sdkmessage": Table(messages, lambda name: {"sdkmessageid": _id(name), "name": name, **_STAMPS}),
        "sdkmessagefilter": Table(filters, _filter),
        "serviceendpoint": Table({}, dict),
        "sdkmessageprocessingstep": Table({}, dict, indexes={"_eventhandler_value": handler}),
    }


def _filter(each: tuple[str, str]) -> Row:
    message, table = each
    return {
        "sdkmessagefilterid": _id(f"{message} {table}"), "name": None, "primaryobjecttypecode": table, "_sdkmessageid_value": _id(message), **_STAMPS,
    }  # fmt: skip


def _id(name: str) -> str:
    return str(uuid.uuid5(_SPACE, name))

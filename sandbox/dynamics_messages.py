"""The messages of the platform's event pipeline, and where webhooks are registered: service endpoints and processing steps, as tables."""

from typing import Any

from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import mix, tag

MESSAGES = ("Create", "Update", "Delete", "Merge")
TABLES = ("contact", "account", "lead", "opportunity")
_SINCE = {"createdon": "2023-01-01T00:00:00Z", "modifiedon": "2023-01-01T00:00:00Z", "versionnumber": 800}


def guid(kind: str, number: int) -> str | Any:
    """Return the id of a world record, None for number 0. Its order says nothing about anything."""
    if not number:
        return None
    high, low = mix(tag(kind), number), mix(number, tag(kind))
    return f"{high >> 32:08x}-{(high >> 16) & 0xFFFF:04x}-4{high & 0xFFF:03x}-a{low & 0xFFF:03x}-{(low >> 48) & 0xFFFF:04x}{number:08x}"


def message_tables() -> dict[str, Table[Any]]:
    """Return the tables of messages, of their filters, and those in which webhooks are registered, which are empty."""
    filters = {
        guid("filter", at * 10 + nth): (table, nth)
        for at, table in enumerate(TABLES, start=1)
        for nth, message in enumerate(MESSAGES, start=1)
        if message != "Merge" or table != "opportunity"
    }
    return {
        "sdkmessage": Table({guid("message", nth): nth for nth in range(1, len(MESSAGES) + 1)}, _message),
        "sdkmessagefilter": Table(filters, _filter),
        "serviceendpoint": Table({}, dict),
        "sdkmessageprocessingstep": Table(
            {}, dict, indexes={"_eventhandler_value": Column(lambda _: None, lambda row: row.get("_eventhandler_value"))}
        ),
    }  # fmt: skip


def _message(nth: int) -> Row:
    return {"sdkmessageid": guid("message", nth), "name": MESSAGES[nth - 1], **_SINCE}


def _filter(entry: tuple[str, int]) -> Row:
    table, nth = entry
    return {
        "sdkmessagefilterid": guid("filter", (TABLES.index(table) + 1) * 10 + nth), "name": None, "primaryobjecttypecode": table, "_sdkmessageid_value": guid("message", nth), **_SINCE,
    }  # fmt: skip

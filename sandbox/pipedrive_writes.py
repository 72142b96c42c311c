"""What becomes of a Pipedrive record that is created or changed: what the body leaves out, and what must agree."""

from sandbox.pipedrive_fields import STATUSES, Refused, custom_keys
from sandbox.pipedrive_rows import PIPELINES, pipeline_of
from sandbox.table import Row

_CLOSING = ("close_time", "won_time", "lost_time")


def blank(object: str, id: int, now: str) -> Row:
    """Return a new record before anything is said of it."""
    row: Row = {
        "id": id, "owner_id": 1, "label_ids": [], "visible_to": 3, "add_time": now, "is_deleted": False, "custom_fields": dict.fromkeys(custom_keys(object)),
    }  # fmt: skip
    if object == "person":
        return {**row, "org_id": None, "emails": [], "phones": [], "picture_id": None}
    if object == "organization":
        return {**row, **dict.fromkeys(("address", "website", "linkedin", "industry", "annual_revenue", "employee_count"))}
    empty = (
        "lost_reason",
        "probability",
        "expected_close_date",
        "archive_time",
        "origin_id",
        "channel",
        "channel_id",
        "source_lead_id",
        "acv",
        "arr",
        "mrr",
    )
    return {
        **row, **dict.fromkeys((*_CLOSING, *empty)), "creator_user_id": 1, "value": 0, "currency": "USD", "person_id": None, "org_id": None, "pipeline_id": 1, "stage_id": 1,
        "status": "open", "stage_change_time": now, "is_archived": False, "origin": "API", "_participants": (),
    }  # fmt: skip


def settled(object: str, before: Row, body: Row, now: str) -> Row:
    """Return the record with the body in it.

    Raises:
        Refused: the two do not go together.
    """
    row = {**before, **body, "custom_fields": {**before["custom_fields"], **body.get("custom_fields", {})}}
    if object == "person":
        first, _, rest = row["name"].partition(" ")
        row |= {
            "first_name": first,
            "last_name": rest or None,
            "emails": _values(row["emails"]),
            "phones": _values(row["phones"]),
        }
    elif object == "deal":
        _settle_deal(before, body, row, now)
    return row


def swallowed(kept: Row, gone: Row) -> Row:
    """Return the addresses and numbers of a person who takes over those of another one; nothing for an organization."""
    return {
        name: [*kept[name], *({**each, "primary": not kept[name]} for each in gone[name] if each["value"] not in {its["value"] for its in kept[name]})]
        for name in ("emails", "phones") if name in kept
    }  # fmt: skip


def handed_over(deal: Row, tie: str, gone: int, kept: int) -> Row:
    """Return what changes in a deal when the record it is tied to goes into another one."""
    tied: Row = {tie: kept} if deal[tie] == gone else {}
    if tie == "person_id":
        tied["_participants"] = tuple(dict.fromkeys(kept if id == gone else id for id in deal["_participants"]))
    return tied


def _settle_deal(before: Row, body: Row, row: Row, now: str) -> None:
    """Let status, stage, times and participants of a deal agree."""
    if row["status"] not in STATUSES:
        raise Refused(400, "Validation failed: status", code="ERR_SCHEMA_VALIDATION_FAILED")
    if "stage_id" in body:
        pipeline = pipeline_of(body["stage_id"])
        if pipeline is None or body.get("pipeline_id", pipeline) != pipeline:
            raise Refused(400, "Validation failed: stage_id: not found", code="ERR_SCHEMA_VALIDATION_FAILED")
        row["pipeline_id"] = pipeline
    elif "pipeline_id" in body:
        if body["pipeline_id"] not in PIPELINES:
            raise Refused(400, "Validation failed: pipeline_id: not found", code="ERR_SCHEMA_VALIDATION_FAILED")
        row["stage_id"] = PIPELINES[body["pipeline_id"]][1][0]
    if body.get("lost_reason") and row["status"] != "lost":
        raise Refused(400, "lost_reason can only be set when the deal is lost", code="ERR_SCHEMA_VALIDATION_FAILED")
    for status in ("won", "lost"):
        if body.get(f"{status}_time") and row["status"] != status:
            raise Refused(400, f"{status}_time can only be set when the deal is {status}", code="ERR_SCHEMA_VALIDATION_FAILED")
    if row["stage_id"] != before["stage_id"]:
        row["stage_change_time"] = now
    if row["status"] != before["status"]:
        closed = {"close_time": None if row["status"] == "open" else now}
        row |= {**dict.fromkeys(_CLOSING), **closed, **({f"{row['status']}_time": now} if row["status"] != "open" else {})}
        row["lost_reason"] = row["lost_reason"] if row["status"] == "lost" else None
    if row["person_id"] is not None and row["person_id"] not in row["_participants"]:
        row["_participants"] = (row["person_id"], *row["_participants"])
    if row["is_deleted"]:
        row["status"] = "deleted"


def _values(said: list[Row]) -> list[Row]:
    """Return e-mail addresses or phone numbers with exactly one primary one."""
    first = next((at for at, each in enumerate(said) if each.get("primary")), 0)
    return [{"value": each["value"], "primary": at == first, "label": each.get("label", "work")} for at, each in enumerate(said)]

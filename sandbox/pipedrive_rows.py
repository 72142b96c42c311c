"""The population as Pipedrive's rows (API v2; users are v1), and the tables they are looked up in.

Names that begin with "_" are the sandbox's own and never shown.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sandbox.pipedrive_fields import FIELDS, INDUSTRIES, Field, key
from sandbox.table import Field as Column
from sandbox.table import Row, Table
from sandbox.world import CURRENCY, Company, Deal, Profile, User, World

PIPELINES: Mapping[int, tuple[str, tuple[int, ...]]] = {1: ("Sales", (1, 2, 3, 4, 5)), 2: ("Renewals", (6, 7, 8))}
STAGES: Mapping[int, tuple[str, int]] = {  # id → name, probability
    1: ("Qualified", 10), 2: ("Contact Made", 25), 3: ("Demo Scheduled", 50), 4: ("Proposal Made", 75), 5: ("Negotiations Started", 90), 6: ("Due", 40),
    7: ("In Talks", 60), 8: ("Agreed", 95),
}  # fmt: skip
BEGUN = "2023-01-01T00:00:00Z"


def tables(world: World, system: str) -> dict[str, Table[Any]]:
    """Return the rows by unified kind."""
    profiles, deals = world.profiles[system], world.deals[system]
    used = {each.company for each in profiles} | {each.company for each in deals}
    times: dict[str, Column[Any]] = {
        "id": Column(lambda each: each.id, lambda row: row["id"]),
        "add_time": Column(lambda each: moment(each.created), lambda row: row["add_time"]),
        "update_time": Column(lambda each: moment(_updated(each)), lambda row: row["update_time"]),
    }
    org: Column[Any] = Column(lambda each: each.company or None, lambda row: row["org_id"])
    return {
        "contact": Table(
            {str(each.id): each for each in profiles}, person, orders=times,
            indexes={"email": Column(lambda each: (each.email.lower(),) if each.email else (), lambda row: tuple(each["value"].lower() for each in row["emails"])), "org": org},
        ),
        "account": Table({str(each.id): each for each in world.companies if each.id in used}, organization, orders=times),
        "deal": Table(
            {str(each.id): each for each in deals}, deal, orders=times,
            indexes={"person": Column(lambda each: each.contacts, lambda row: tuple(row["_participants"])), "org": org},
        ),
        "owner": Table({str(each.id): each for each in world.users}, user),
    }  # fmt: skip


def person(each: Profile) -> Row:
    return {
        "id": each.id, "name": f"{each.given} {each.family}", "first_name": each.given, "last_name": each.family, "owner_id": each.owner, "org_id": each.company or None,
        "emails": [{"value": each.email, "primary": True, "label": "work"}] if each.email else [],
        "phones": [{"value": each.phone, "primary": True, "label": "work"}] if each.phone else [],
        "label_ids": [], "visible_to": 3, "picture_id": None, "add_time": moment(each.created), "update_time": moment(each.updated), "is_deleted": each.deleted,
        "custom_fields": custom("person", {
            "Loyalty tier": 101 + each.number % 3, "Interests": [111, 113] if each.number % 2 else None, "Score": each.number / 10,
            "Yearly budget": {"value": each.number * 100, "currency": CURRENCY[each.country]}, "Customer since": moment(each.created)[:10],
            "Best time to call": {"value": "09:00:00", "timezone_name": "Europe/Berlin"},
            **{f"Survey answer {nth}": f"answer {each.number % (nth + 1)}" for nth in range(1, 13)},
        }),
    }  # fmt: skip


def organization(each: Company) -> Row:
    return {
        "id": each.id, "name": each.name, "owner_id": 1 + each.id % 7, "address": {"value": "", "country": each.country}, "website": f"https://www.{each.domain}/",
        "linkedin": None, "industry": 1 + INDUSTRIES.index(each.industry), "annual_revenue": None, "employee_count": each.employees, "label_ids": [], "visible_to": 3,
        "add_time": moment(each.created), "update_time": moment(each.created), "is_deleted": False,
        "custom_fields": custom("organization", {"Segment": 201 + (each.employees > 500), "Region": each.country}),
    }  # fmt: skip


def deal(each: Deal) -> Row:
    pipeline = 1 if each.number % 4 else 2
    stages = PIPELINES[pipeline][1]
    status = ("open", "won", "lost")[max(each.stage - 4, 0)]
    closed = moment(each.updated) if status != "open" else None
    return {
        "id": each.id, "title": each.name, "creator_user_id": each.owner, "owner_id": each.owner, "value": each.cents / 100, "currency": each.currency,
        "person_id": each.contacts[0], "org_id": each.company or None, "pipeline_id": pipeline, "stage_id": stages[each.stage % len(stages)],
        "status": "deleted" if each.deleted else status, "probability": None, "lost_reason": "Price" if status == "lost" else None, "visible_to": 3, "label_ids": [],
        "add_time": moment(each.created), "update_time": moment(each.updated), "stage_change_time": moment(each.updated), "close_time": closed,
        "won_time": closed if status == "won" else None, "lost_time": closed if status == "lost" else None, "expected_close_date": moment(each.close)[:10],
        "is_archived": False, "archive_time": None, "is_deleted": each.deleted, "origin": "ManuallyCreated", "origin_id": None, "channel": None, "channel_id": None,
        "source_lead_id": None, "acv": None, "arr": None, "mrr": None,
        "custom_fields": custom("deal", {
            "Sales region": 301 + each.number % 3, "Contract term": {"value": "2026-01-01", "until": "2026-12-31"},
            "Setup fee": {"value": each.number, "currency": each.currency},
        }),
        "_participants": each.contacts,
    }  # fmt: skip


def user(each: User) -> Row:
    return {
        "id": each.id, "name": f"{each.given} {each.family}", "default_currency": "USD", "locale": "en_US", "lang": 1, "email": each.email, "phone": None, "activated": True,
        "last_login": "2026-06-30 08:45:56", "created": "2023-01-01 09:16:26", "modified": "2026-06-30 08:45:56", "active_flag": each.active,
        "timezone_name": "Europe/Berlin", "timezone_offset": "+02:00", "role_id": 1, "icon_url": None, "is_you": each.id == 1, "is_deleted": False,
    }  # fmt: skip


def stages(pipeline: int | None) -> list[Row]:
    return [
        {
            "id": id, "order_nr": nth, "name": STAGES[id][0], "is_deleted": False, "deal_probability": STAGES[id][1], "pipeline_id": number, "is_deal_rot_enabled": False,
            "days_to_rotten": None, "add_time": BEGUN, "update_time": BEGUN,
        }
        for number, (_, ids) in PIPELINES.items() if pipeline in {None, number} for nth, id in enumerate(ids, 1)
    ]  # fmt: skip


def pipelines() -> list[Row]:
    return [
        {
            "id": id,
            "name": name,
            "order_nr": id,
            "is_deleted": False,
            "is_deal_probability_enabled": True,
            "add_time": BEGUN,
            "update_time": BEGUN,
        }
        for id, (name, _) in PIPELINES.items()
    ]


def pipeline_of(stage: int) -> int | None:
    return next((id for id, (_, ids) in PIPELINES.items() if stage in ids), None)


def custom(object: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all custom fields by key, null where there is no value; of two with one name the first has it."""
    found: dict[str, Any] = {}
    for code, each in FIELDS[object].items():
        if each.custom:
            found[code] = values.get(each.name) if code == key(object, each.name) else None
    return found


def labelled(field: Field, value: Any) -> Any:
    """Return options as `include_option_labels` shows them."""
    if not field.options or value is None:
        return value
    names = dict(zip(field.ids, field.options, strict=True))
    several: Sequence[int] = value if isinstance(value, list) else [value]
    shown = [{"id": id, "label": names[id]} for id in several]
    return shown if isinstance(value, list) else shown[0]


def moment(millis: float) -> str:
    return f"{datetime.fromtimestamp(millis // 1000, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"


def _updated(each: Any) -> int:
    updated: int = getattr(each, "updated", each.created)
    return updated

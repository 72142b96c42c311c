"""Scalars that GraphQL does not have."""

import re
from datetime import timedelta
from typing import Any, NewType

import strawberry
from strawberry.scalars import JSON
from strawberry.types.scalar import ScalarDefinition

_DURATION = re.compile(
    r"P(?!$)(?:(?P<days>\d{1,6})D)?(?:T(?!$)(?:(?P<hours>\d{1,6})H)?(?:(?P<minutes>\d{1,6})M)?(?:(?P<seconds>\d{1,9}(?:\.\d{1,6})?)S)?)?"
)

Duration = NewType("Duration", timedelta)
System = NewType("System", str)
EventCursor = NewType("EventCursor", str)


def parse_duration(value: Any) -> timedelta:
    """Return the length of an ISO 8601 duration of days, hours, minutes and seconds, such as "PT30S" or "P1DT2H"."""
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a duration is written as in "PT30S" or "P1DT2H"')
    return timedelta(**{unit: float(amount) for unit, amount in found.groupdict().items() if amount is not None})


def print_duration(value: timedelta) -> str:
    """Write a length as ISO 8601, in seconds."""
    return f"PT{value.total_seconds():.10g}S"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("this is written as text")
    return value


SCALARS: dict[object, ScalarDefinition] = {
    EventCursor: strawberry.scalar(
        name="EventCursor",
        description="A place in the log of events: opaque, good for one workspace.",
        serialize=_text,
        parse_value=_text,
    ),
    Duration: strawberry.scalar(
        name="Duration", description="ISO 8601, such as PT30S.", serialize=print_duration, parse_value=parse_duration
    ),
    System: strawberry.scalar(
        name="System",
        description="Key of an adapter, as `c360 systems` lists them: an open set, so that a further system is no schema change.",
        serialize=_text,
        parse_value=_text,
    ),
}

__all__ = ["JSON", "SCALARS", "Duration", "EventCursor", "System", "parse_duration", "print_duration"]

"""How Marketo writes a time: in three ways, as its own examples do."""

from datetime import UTC, datetime, timedelta, timezone

_PACIFIC = timezone(timedelta(hours=-8))


def moment(millis: float, number: int) -> str:
    """Return the time of a record, written in the way of its number: 2016-05-17T22:11:45Z, …14:11:45-08:00 or …22:11:45+0000."""
    at = datetime.fromtimestamp(millis // 1000, tz=_PACIFIC if number % 3 == 1 else UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}{('Z', '-08:00', '+0000')[number % 3]}"


def read_moment(text: str) -> int:
    """Return milliseconds since 1970."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)

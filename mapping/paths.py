"""Paths into a row: dotted names, with a selector for lists of keyed entries, as in "custom_fields[id=27642].value"."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

_STEP = re.compile(r"(?P<name>[^.\[\]]+)(?:\[(?P<key>[^=\]]+)=(?P<value>[^\]]*)\])?")

Step = tuple[str, tuple[str, str] | None]
Getter = Callable[[Mapping[str, Any]], Any]


@lru_cache(maxsize=4096)
def steps(path: str) -> tuple[Step, ...]:
    """Split a path into its steps.

    Raises:
        ValueError: it is not a path.
    """
    found: list[Step] = []
    at = 0
    while True:
        step = _STEP.match(path, at)
        if step is None:
            raise ValueError(f"not a path: {path!r}")
        found.append((step["name"], (step["key"], step["value"]) if step["key"] else None))
        at = step.end()
        if at == len(path):
            return tuple(found)
        if path[at] != ".":
            raise ValueError(f"not a path: {path!r}")
        at += 1


def pick(row: Mapping[str, Any], path: str) -> Any:
    """Return the value at `path`, None where any step is missing."""
    value: Any = row
    for name, selector in steps(path):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
        if selector is not None:
            key, wanted = selector
            entries = value if isinstance(value, list) else ()
            value = next((entry for entry in entries if isinstance(entry, Mapping) and str(entry.get(key)) == wanted), None)
    return value


def has(row: Mapping[str, Any], path: str) -> bool:
    """Tell whether the row knows the path's value, be it null: a projection that left it out does not."""
    value: Any = row
    for name, selector in steps(path):
        if value is None:
            return True  # a null on the way is an answer: there is nothing below
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
        if selector is not None:
            return True  # lists of keyed entries come whole
    return True

"""What can be made to go wrong, and how often."""

import random
from fnmatch import fnmatchcase
from itertools import count
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

FaultName = Literal[
    "status",
    "throttle",
    "exhaust",
    "latency",
    "hang",
    "reset",
    "html",
    "bad_json",
    "truncate",
    "revoke_token",
    "clock_skew",
    "late_answer",
    "late_commit",
    "webhook_delay",
    "webhook_duplicate",
    "webhook_reorder",
    "webhook_drop",
]
# What strikes no call: webhooks on their way out, and rows on their way in.
NOT_CALLS = frozenset({"late_commit", "webhook_delay", "webhook_duplicate", "webhook_reorder", "webhook_drop"})


class Fault(BaseModel):
    """One rule. The first rule that strikes a call is the one that applies.

    Attributes:
        path: a glob over "METHOD /path/{id}", or over the path alone; "*" is every call.
        seconds: how long for throttle (Retry-After), latency (before the work), late_answer (after it), hang, webhook_delay and
            webhook_reorder (at most); how far for clock_skew; how far back the modified time of a late_commit lies.
        rate: share of matching calls that are struck.
        times: how often at most, None without end.
    """

    model_config = ConfigDict(extra="forbid")

    system: str
    fault: FaultName
    path: str = "*"
    status: int = Field(default=503, ge=200, le=599)
    seconds: float = Field(default=1.0, ge=-1e9, le=1e9)
    rate: float = Field(default=1.0, ge=0, le=1)
    times: int | None = Field(default=None, ge=1)


class Faults:
    """The rules in force, drawn with a seeded generator."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._rules: dict[int, Fault] = {}
        self._ids = count(1)

    def add(self, fault: Fault) -> int:
        number = next(self._ids)
        self._rules[number] = fault.model_copy()
        return number

    def remove(self, number: int) -> bool:
        return self._rules.pop(number, None) is not None

    def clear(self) -> None:
        self._rules.clear()

    def listed(self) -> dict[int, dict[str, Any]]:
        return {number: rule.model_dump() for number, rule in self._rules.items()}

    def strikes(self, system: str, template: str, *, only: str | None = None) -> Fault | None:
        """Return the rule that strikes this call, and use up one of its times.

        Args:
            only: the one fault looked for, of those that strike no calls.
        """
        for number, rule in list(self._rules.items()):
            if rule.system not in {system, "*"} or (rule.fault in NOT_CALLS if only is None else rule.fault != only):
                continue
            if not fnmatchcase(template, rule.path) and not fnmatchcase(template.partition(" ")[2], rule.path):
                continue
            if self._rng.random() >= rule.rate:
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times < 1:
                    del self._rules[number]
            return rule
        return None


class _Cut(Response):
    """Announces the whole body, sends half of it, and drops the line; without a body it drops the line at once."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.body:
            _abort(scope)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})
        _abort(scope)


class Reset(Response):
    """Drops the line without a word."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _abort(scope)


def cut_off(response: Response, request: Request, fault: Fault) -> Response:
    """Spoil an answer that is otherwise right."""
    match fault.fault:
        case "reset":
            return Reset()
        case "truncate":
            return _Cut(response.body, response.status_code, dict(response.headers))
        case "bad_json":
            headers = {name: value for name, value in response.headers.items() if name != "content-length"}
            return Response(bytes(response.body)[:-1] + b',,"}', response.status_code, headers)
    return response


def _abort(scope: Scope) -> None:
    transport = scope.get("c360.transport")
    if transport is None:
        raise ConnectionResetError("the sandbox cut the line")
    transport.abort()

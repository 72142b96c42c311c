"""The retry policy: when something is sent again, as JSON that users may set.

{"first": 1, "factor": 2, "cap": 32, "jitter": "full", "maxAttempts": 12, "retryAfter": 3600, "timeout": 15}
"""

import math
import random
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from model.errors import InvalidRequestError

P = TypeVar("P", bound="RetryPolicy")


class RetryPolicy(BaseModel):
    """
    Attributes:
        first: seconds after the first send, at the most.
        factor: how much longer each further wait may be.
        cap: seconds that no wait of ours is longer than.
        jitter: "full": a wait is anything between nothing and its longest, so that many who failed together do not come back
            together; "none": always the longest.
        max_attempts: sends in all, the first one counted.
        retry_after: seconds that are waited at the most because an answer says so (`Retry-After`).
        timeout: seconds that a send may take, from look-up to answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)

    first: float = Field(default=1.0, gt=0, le=3600)
    factor: float = Field(default=2.0, ge=1, le=10)
    cap: float = Field(default=32.0, gt=0, le=86_400)
    jitter: Literal["full", "none"] = "full"
    max_attempts: int = Field(default=12, ge=1, le=1000)
    retry_after: float = Field(default=3600.0, ge=0, le=86_400)
    timeout: float = Field(default=15.0, gt=0, le=60)

    @classmethod
    def parse(cls: type[P], said: Mapping[str, Any]) -> P:
        """Return the policy that JSON says; what it leaves out is the default.

        Raises:
            InvalidRequestError: naming the key that is unknown or wrong.
        """
        try:
            return cls.model_validate(dict(said))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            key = ".".join(str(step) for step in first["loc"])
            reason = "is no key of a retry policy" if first["type"] == "extra_forbidden" else first["msg"]
            raise InvalidRequestError(f"{key}: {reason}") from None

    def json_value(self) -> dict[str, Any]:
        """Return the policy as JSON, every key said."""
        return self.model_dump(by_alias=True)


def longest(policy: RetryPolicy, sends: int) -> float:
    """Return the seconds that the wait after `sends` sends (1, 2, …) lasts at the most."""
    # In logarithms: the power itself grows out of what a float holds.
    if math.log(policy.first) + (sends - 1) * math.log(policy.factor) >= math.log(policy.cap):
        return policy.cap
    return policy.first * policy.factor ** (sends - 1)


def wait(policy: RetryPolicy, sends: int, rng: random.Random, *, retry_after: float | None = None) -> float | None:
    """Return the seconds to wait after `sends` sends that failed; None: they were the last.

    Args:
        retry_after: seconds that the answer asked for; within bounds it wins over our own, be it longer or shorter.
    """
    if sends >= policy.max_attempts:
        return None
    if retry_after is not None:
        return min(max(retry_after, 0.0), policy.retry_after)
    most = longest(policy, sends)
    return rng.uniform(0.0, most) if policy.jitter == "full" else most

"""The retry policy: how long is waited, and when no more."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InvalidRequestError
from sync.retry import RetryPolicy, longest, wait

policies = st.builds(
    RetryPolicy,
    first=st.floats(0.001, 3600),
    factor=st.floats(1, 10),
    cap=st.floats(0.001, 86_400),
    jitter=st.sampled_from(["full", "none"]),
    max_attempts=st.integers(1, 1000),
)


def test_the_default_waits_one_second_doubling_to_thirty_two() -> None:
    policy = RetryPolicy()

    assert [longest(policy, sends) for sends in range(1, 9)] == [1, 2, 4, 8, 16, 32, 32, 32]


@given(policies, st.integers(1, 1000), st.integers())
def test_no_wait_is_longer_than_the_policy_allows(policy: RetryPolicy, sends: int, seed: int) -> None:
    waited = wait(policy, sends, random.Random(seed))

    if sends >= policy.max_attempts:
        assert waited is None
    else:
        assert waited is not None
        assert 0 <= waited <= longest(policy, sends) <= policy.cap


@given(policies, st.integers(1, 998))
def test_the_longest_wait_never_shrinks(policy: RetryPolicy, sends: int) -> None:
    assert longest(policy, sends) <= longest(policy, sends + 1)


@given(policies, st.floats(-1e9, 1e9), st.integers())
def test_what_an_answer_asks_for_wins_within_bounds(policy: RetryPolicy, asked: float, seed: int) -> None:
    waited = wait(policy, 1, random.Random(seed), retry_after=asked)

    assert waited is None if policy.max_attempts == 1 else waited == min(max(asked, 0.0), policy.retry_after)


def test_jitter_is_full_it_spreads_from_nothing_to_the_longest() -> None:
    policy, rng = RetryPolicy(first=10, cap=10, max_attempts=2), random.Random(3)

    waits = [wait(policy, 1, rng) or 0.0 for _ in range(1000)]

    assert min(waits) < 0.5
    assert max(waits) > 9.5
    assert 4.5 < sum(waits) / 1000 < 5.5


def test_without_jitter_each_wait_is_the_longest() -> None:
    policy = RetryPolicy(jitter="none", max_attempts=4)

    assert [wait(policy, sends, random.Random(0)) for sends in (1, 2, 3, 4)] == [1, 2, 4, None]


@given(policies)
def test_a_policy_survives_json(policy: RetryPolicy) -> None:
    assert RetryPolicy.parse(json.loads(json.dumps(policy.json_value()))) == policy


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"maxAttempts": 0}, "maxAttempts"),
        ({"max_attempts": "many"}, "max_attempts"),
        ({"cap": -1}, "cap"),
        ({"jitter": "some"}, "jitter"),
        ({"tries": 3}, "tries: is no key"),
    ],
)
def test_a_mistake_in_a_policy_is_told_by_its_key(said: dict[str, object], told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        RetryPolicy.parse(said)

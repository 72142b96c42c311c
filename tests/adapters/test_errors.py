"""Each vendor's own way to refuse becomes the class that says what to do; and what answers say of budgets is heard.

Bodies are the vendors', from their documents (`refusals/`): status, body code and body kind together decide.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import orjson
import pytest

from adapters.base import Adapter, Config, Learned, Response
from adapters.registry import ADAPTERS
from model.errors import RejectedError, SourceError
from tests.adapters.refusals.answers import HTML, answer

CORPORA = {system: import_module(f"tests.adapters.refusals.{system}") for system in sorted(ADAPTERS)}
CASES = [(system, *case) for system, corpus in CORPORA.items() for case in corpus.REFUSALS]
HEARD = [(system, *case) for system, corpus in CORPORA.items() for case in corpus.HEARD]


def adapter(system: str) -> Adapter:
    return ADAPTERS[system](Config(source=system, base_url="https://vendor.example"))


@pytest.mark.parametrize(("system", "response", "error", "retry_after"), CASES)
def test_a_refusal_becomes_the_class_that_says_what_to_do(
    system: str, response: Response, error: type[SourceError], retry_after: float | None
) -> None:
    found = adapter(system).classify(response)

    assert type(found) is error
    assert found.retry_after == retry_after


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_every_system_has_eight_ways_to_refuse_under_test(system: str) -> None:
    assert len([each for each in CASES if each[0] == system]) >= 8


@pytest.mark.parametrize("status", [413, 414, 431])
@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_a_request_that_is_too_long_is_our_fault_whoever_says_so(system: str, status: int) -> None:
    found = adapter(system).classify(answer(status, HTML))

    assert type(found) is RejectedError


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_an_error_never_repeats_what_the_vendor_echoed(system: str) -> None:
    echoes = [
        replace(response, body=orjson.dumps(body))
        for response, _, _ in CORPORA[system].REFUSALS
        for body in echoing("Contact ada@example.com exists", response.json_or_none())
    ]

    found = [adapter(system).classify(each) for each in echoes]

    assert len(found) >= 8
    assert not [each for each in found if each and "ada@" in f"{each.message} {each.upstream_code}"]


def echoing(words: str, body: Any) -> Iterator[Any]:
    """Return a body's likenesses, each with `words` in place of one of its texts."""
    if isinstance(body, str):
        yield words
    elif isinstance(body, dict):
        yield from ({**body, key: like} for key, value in body.items() for like in echoing(words, value))
    elif isinstance(body, list):
        yield from ([*body[:at], like, *body[at + 1 :]] for at, value in enumerate(body) for like in echoing(words, value))


@pytest.mark.parametrize(("system", "response", "heard"), HEARD)
def test_what_an_answer_says_of_the_budget_is_heard(system: str, response: Response, heard: list[Learned]) -> None:
    assert list(adapter(system).learn(response)) == heard

"""Each vendor's own way to refuse becomes the class that says what to do; and what answers say of budgets is heard.

Bodies are the vendors', from their documents (`refusals/`): status, body code and body kind together decide.
"""

from importlib import import_module

import pytest

from adapters.base import Adapter, Config, Learned, Response
from adapters.registry import ADAPTERS
from model.errors import SourceError
from tests.adapters.refusals.answers import answer

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


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_a_message_never_repeats_what_the_vendor_echoed(system: str) -> None:
    echo = {
        "message": "Contact ada@example.com",
        "error": "RecordInvalid",
        "description": "ada@example.com",
        "errors": [{"message": "ada@example.com"}],
    }

    found = adapter(system).classify(answer(400, [echo] if system == "salesforce" else echo))

    assert found is not None
    assert "ada@" not in found.message


@pytest.mark.parametrize(("system", "response", "heard"), HEARD)
def test_what_an_answer_says_of_the_budget_is_heard(system: str, response: Response, heard: list[Learned]) -> None:
    assert list(adapter(system).learn(response)) == heard

"""The page of systems says what the facts say, and claims no evidence that no test shows."""

from pathlib import Path

import pytest

from adapters.overview import EVIDENCE, page, verbs
from adapters.registry import ADAPTERS

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_adapters_say() -> None:
    assert (ROOT / "docs" / "systems.md").read_text() == page(ADAPTERS.values()), "run `make systems`"


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_evidence_names_a_test_that_is_there(system: str) -> None:
    adapter = ADAPTERS[system]

    assert adapter.evidence in EVIDENCE
    assert (ROOT / adapter.shown_by).is_file()
    assert system in (ROOT / adapter.shown_by).read_text().lower() or adapter.shown_by.endswith("test_contract.py")


@pytest.mark.parametrize("system", sorted(ADAPTERS))
def test_every_verb_that_the_facts_promise_is_served(system: str) -> None:
    adapter = ADAPTERS[system]

    assert {"check", "describe", "read"} <= set(verbs(adapter))
    assert ("related" in verbs(adapter)) == bool(adapter.relations)
    assert ("find" in verbs(adapter)) == any(facts.find for facts in adapter.kinds.values())

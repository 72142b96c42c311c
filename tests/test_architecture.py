"""Rules of the house that no linter knows."""

import re
from pathlib import Path

import pytest

from adapters.registry import ADAPTERS

ROOT = Path(__file__).parents[1]
CORE = sorted(
    path for folder in ("mapping", "identity", "cache", "credentials", "store") for path in (ROOT / folder).rglob("*.py")
)
# Here not even an example names one: whoever reads these must not think of a system.
BLIND = sorted(path for folder in ("resolvers", "sources", "schema", "sync") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_never_branches_on_a_systems_name(path: Path) -> None:
    code = re.sub(r'"""[\s\S]*?"""|#[^\n]*|description=[^\n]*', "", path.read_text())

    assert not re.findall(rf"(?i)['\"](?:{'|'.join(ADAPTERS)})['\"]", code)


@pytest.mark.parametrize("path", BLIND, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_stands_above_the_adapters_mentions_no_system(path: Path) -> None:
    assert not re.findall(rf"(?i){'|'.join(ADAPTERS)}", path.read_text())


def test_settings_are_read_in_the_gateway_alone() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"gateway", "benchmarks"}

    reading = [path for folder in folders for path in (ROOT / folder).rglob("*.py") if "os.environ" in path.read_text()]

    assert reading == []


def test_every_page_the_documents_link_to_is_there() -> None:
    broken = [
        f"{page.relative_to(ROOT)} → {target}"
        for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert broken == []

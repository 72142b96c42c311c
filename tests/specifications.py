"""The vendors' published descriptions, where they are at hand; the project works without them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest


def specification(*steps: str) -> Path:
    """Return the path of one; the test is skipped, and says so, where it is not there."""
    folder = Path(os.environ.get("C360_SPECS") or Path(__file__).parents[1].parent / "shared" / "vendors" / "specs")
    path = folder.joinpath(*steps)
    if not path.exists():
        pytest.skip("the vendors' descriptions are not here (C360_SPECS names their folder)")
    return path


def digest(*steps: str) -> Any:
    """Return a description's digest: paths, their parameters and the properties of their answers."""
    return json.loads(specification(*steps).read_text())

"""Outside programs that tests use: absent ones are told plainly, and in CI none may be missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NODE = Path(__file__).parent / "node"


def needed(program: str) -> str:
    """Return the program's path; skip with a plain line where it is absent, fail in CI."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not on PATH; the tests that need it did not run"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


def node(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script of tests/node, after installing what its lock file says."""
    program, npm = needed("node"), needed("npm")
    installed = NODE / "node_modules" / ".package-lock.json"  # npm leaves it where it is done
    if not installed.exists() or installed.stat().st_mtime < (NODE / "package-lock.json").stat().st_mtime:
        subprocess.run([npm, "ci", "--silent", "--no-audit", "--no-fund"], cwd=NODE, check=True, timeout=300)
    return subprocess.run([program, NODE / script, *map(str, arguments)], capture_output=True, text=True, timeout=120)

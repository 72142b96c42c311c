"""Outside programs that tests use: absent ones are told plainly, and in CI none may be missing."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
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
    return subprocess.run(_command(script, arguments), capture_output=True, text=True, timeout=120)


@contextlib.contextmanager
def running_node(script: str, *arguments: str | Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a script of tests/node, to be heard while it runs; it is stopped in the end."""
    with subprocess.Popen(_command(script, arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def _command(script: str, arguments: Sequence[str | Path]) -> list[str]:
    program, npm = needed("node"), needed("npm")
    installed = NODE / "node_modules" / ".package-lock.json"  # npm leaves it where it is done
    if not installed.exists() or installed.stat().st_mtime < (NODE / "package-lock.json").stat().st_mtime:
        subprocess.run([npm, "ci", "--silent", "--no-audit", "--no-fund"], cwd=NODE, check=True, timeout=300)
    return [program, str(NODE / script), *map(str, arguments)]

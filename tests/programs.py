"""`c360` as a process of its own, as a user starts it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

C360 = Path(sys.executable).parent / "c360"


def environment(**settings: str) -> dict[str, str]:
    """Return ours without C360_*, and these settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("C360_")} | settings


def c360(*arguments: str | Path, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [C360, *arguments], cwd=cwd, env=environment(**settings), capture_output=True, text=True, timeout=60, check=False
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def started(
    *arguments: str | Path, cwd: Path, url: str, settings: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a server, wait until `url` answers; kill it at the end if it still runs."""
    process = subprocess.Popen(
        [C360, *arguments],
        cwd=cwd,
        env=environment(**(settings or {})),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"it ended: {process.stderr.read() if process.stderr else ''}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(url, timeout=1).status_code < 500:
                    break
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=10)

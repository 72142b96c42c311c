"""The sandbox as a process of its own, so that its work is not counted as ours."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx


@contextlib.contextmanager
def vendors(people: int) -> Iterator[str]:
    """Serve the vendor world; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "c360"), "sandbox", "--port", str(port), "--people", str(people)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{address}/_control/calls", timeout=1)
                break
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait(10)

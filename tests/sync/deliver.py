"""A process that delivers, for tests that kill it: `deliver.py <database url> <owner> <lease>`; it says "up" and runs until it is killed."""

import asyncio
import sys

from model.clock import SystemClock
from tests.sync.hooks import delivering


async def run(url: str, owner: str, lease: float) -> None:
    async with delivering(url, SystemClock(), owner=owner, lease=lease) as parts:
        await parts.outbound.start()
        sys.stdout.write("up\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], float(sys.argv[3])))

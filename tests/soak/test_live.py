"""Killed at random while webhooks come in: what was answered 2xx is accounted for, told once, and ends in the vendor's last version."""

import contextlib
import random
import threading
import time
from pathlib import Path

import pytest

from tests.programs import free_port
from tests.soak.shop import SECONDS, SMALL, Process, configured, edit, proved, settle, shop, spread, wait

WEBHOOKS, KILLS, BETWEEN = (
    (400, 3, (0.1, 1.0)) if SMALL else (5000, 20, (0.1, 6.0))
)  # BETWEEN: seconds between a start and a kill


@pytest.mark.soak
@pytest.mark.parametrize("processes", [1, 2], ids=["sqlite", "postgresql-two-processes"])
def test_nothing_that_was_answered_2xx_is_lost_or_told_twice(
    tmp_path: Path, request: pytest.FixtureRequest, processes: int
) -> None:
    database = f"sqlite:///{tmp_path / 'c360.db'}" if processes == 1 else request.getfixturevalue("postgresql_url")
    rng = random.Random(1)
    with shop(people=300 if SMALL else 2000) as (sandbox, address):
        ports = [free_port() for _ in range(processes)]
        front = free_port() if processes > 1 else ports[0]
        config = configured(tmp_path, sandbox, address, database, f"http://127.0.0.1:{front}")
        running = [Process(tmp_path, config, port) for port in ports]
        with spread(front, ports) if processes > 1 else contextlib.nullcontext():
            try:
                for each in running:
                    each.start()
                wait(lambda: len(sandbox.dialects["shopify"].subscriptions()) > 0, "nobody subscribed")
                editing = threading.Thread(target=edit, args=(sandbox, rng, WEBHOOKS), daemon=True)
                editing.start()
                for _ in range(KILLS):
                    time.sleep(rng.uniform(*BETWEEN))
                    victim = rng.choice(running)
                    victim.kill()
                    victim.start()
                    sandbox.clock.advance(900)  # what failed meanwhile is sent again
                editing.join(SECONDS)
                if processes > 1:
                    running.pop().kill()  # this one never comes back
                settle(sandbox, database)
                proved(sandbox, database, running[0], WEBHOOKS)
            finally:
                for each in running:
                    each.kill()

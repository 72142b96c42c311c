"""50 customers with deals, orders and tickets: this graph beside the same one in plain Strawberry, over one sandbox.

    make bench        (or: python -m benchmarks.strawberry --people 1000 --rounds 3)

Both run in this process and execute the same question without HTTP in front; the sandbox runs in its own. Ours starts each
round with empty caches, and is then asked once more. Every figure is told as a ratio of the same run.
"""

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks import plain
from benchmarks.vendors import vendors
from gateway.app import WORKSPACE, Runtime
from gateway.settings import Settings
from resolvers.context import Context
from sandbox.app import DIALECTS
from sandbox.clock import SandboxClock
from sandbox.world import World
from schema.graph import build

OURS = """{ customers(first: 50, read: {deadline: "PT60S"}) { nodes { name primaryEmail
  deals(first: 5) { nodes { name } } orders(first: 5) { nodes { number } } tickets(first: 5) { nodes { subject } } }
  sources { state } } }"""
PLAIN = (
    "{ customers(first: 50) { name email deals(first: 5) { name } orders(first: 5) { number } tickets(first: 5) { subject } } }"
)


SYSTEMS = ("hubspot", "salesforce", "shopify", "zendesk")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    wall_s: float
    cpu_s: float
    calls: int


async def measured(address: str, ask: Callable[[], Awaitable[Any]]) -> tuple[Any, Figures]:
    async with httpx.AsyncClient(base_url=address) as control:
        await control.delete("/_control/calls")
        gc.collect()
        gc.freeze()  # as `c360 serve` does: a full collection in the middle of one of them would hide the rest
        wall, cpu = time.perf_counter(), time.process_time()
        answer = await ask()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        counted = (await control.get("/_control/calls")).json()
    assert not answer.errors, answer.errors
    calls = sum(count for paths in counted.values() for path, count in paths.items() if "token" not in path)
    return answer.data["customers"], Figures(wall_s=wall, cpu_s=cpu, calls=calls)


def auth(system: str) -> dict[str, str]:
    return dict(DIALECTS[system](World(people=1), SandboxClock()).demo_auth())


async def ours(address: str) -> tuple[Any, Figures, Figures]:
    """Ask twice: with empty caches, and again."""
    sources = [{"id": name, "system": name, "base_url": f"{address}/{name}", "auth": auth(name)} for name in SYSTEMS]
    with tempfile.TemporaryDirectory() as folder:
        runtime = Runtime(Settings.model_validate({"data_dir": Path(folder), "sources": sources}))
        await runtime.start()
        graph = build()
        try:
            connected = runtime.registry.of(WORKSPACE)

            async def ask() -> Any:
                context = Context(
                    workspace=WORKSPACE, scopes=frozenset(), sources=connected, index=runtime.index, signer=runtime.signer,
                    writer=runtime.writer(WORKSPACE), events=runtime.events, followed=runtime.followed, health=runtime.health,
                    endpoints=runtime.endpoints, now=lambda: connected, clock=runtime.clock, started=runtime.clock.monotonic(),
                )  # fmt: skip
                return await graph.execute(OURS, context_value=context)

            answer, first = await measured(address, ask)
            _, again = await measured(address, ask)
            return answer["nodes"], first, again
        finally:
            await runtime.stop()


async def theirs(address: str) -> tuple[Any, Figures]:
    async with httpx.AsyncClient(base_url=address, timeout=60) as http:
        graph = plain.Vendors(http, {name: await token(http, name) for name in SYSTEMS})
        return await measured(address, lambda: plain.schema.execute(PLAIN, context_value=graph))


async def token(http: httpx.AsyncClient, system: str) -> str:
    from adapters.registry import ADAPTERS
    from credentials.schemes import OAuth

    scheme, said = ADAPTERS[system].auth["oauth"], auth(system)
    assert isinstance(scheme, OAuth)
    said |= {"grant_type": "refresh_token"}
    del said["scheme"]
    body: dict[str, Any] = {"json": said} if scheme.body == "json" else {"data": said}
    return str((await http.post(f"/{system}{scheme.token_path}", **body)).json()["access_token"])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--people", type=int, default=1000)
    options.add_argument("--rounds", type=int, default=3)
    said = options.parse_args()
    rounds: list[tuple[Figures, Figures, Figures]] = []
    for _ in range(said.rounds):
        with vendors(said.people) as address:  # a new world: its refresh tokens are good once
            their_answer, their_figures = asyncio.run(theirs(address))
        with vendors(said.people) as address:
            our_answer, first, again = asyncio.run(ours(address))
        rounds.append((their_figures, first, again))
    print(f"50 customers with deals, orders, tickets; {said.people} people, 4 systems, median of {said.rounds} rounds\n")
    print(f"{'':34}{'vendor calls':>14}{'CPU ms':>10}{'wall ms':>10}")
    medians = []
    for at, name in enumerate(("plain Strawberry", "customer360, nothing cached", "customer360, asked again")):
        of = [each[at] for each in rounds]
        figures = (
            median(each.calls for each in of),
            median(each.cpu_s for each in of) * 1000,
            median(each.wall_s for each in of) * 1000,
        )
        medians.append(figures)
        print(f"{name:34}{figures[0]:>14.0f}{figures[1]:>10.0f}{figures[2]:>10.0f}")
    for name, figures in (("plain / ours, nothing cached", medians[1]), ("plain / ours, asked again", medians[2])):
        ratios = [their / max(mine, 0.001) if mine else float("inf") for their, mine in zip(medians[0], figures, strict=True)]
        print(f"{name:34}{ratios[0]:>13.1f}×{ratios[1]:>9.1f}×{ratios[2]:>9.1f}×")
    print(f"\n{agreement(our_answer, their_answer)}")


def agreement(mine: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    """Tell for how many customers of both answers the orders are the same, and who lacks some where they are not."""
    known = {each["email"].lower(): each for each in other if each["email"]}
    shared = [(each, known[each["primaryEmail"]]) for each in mine if each["primaryEmail"] in known]
    orders = [({each["number"] for each in a["orders"]["nodes"]}, {each["number"] for each in b["orders"]}) for a, b in shared]
    same = sum(a == b for a, b in orders)
    return (
        f"{len(shared)} customers stand in both answers; the orders of {same} are the same, plain Strawberry lacks orders of"
        f" {sum(a > b for a, b in orders)} (whom it did not look for beyond each system's first page), customer360 of"
        f" {sum(a < b for a, b in orders)}"
    )


if __name__ == "__main__":
    main()

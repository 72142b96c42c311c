"""`c360 endpoints`: where events are sent to (outbound webhooks)."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any, NoReturn

import typer

from gateway.app import WORKSPACE, Runtime
from sync.endpoints import number_of


def commands(run: Callable[[Callable[[Runtime], Awaitable[Any]]], Any], stop: Callable[[str], NoReturn]) -> typer.Typer:
    """Return the commands.

    Args:
        run: does work with an open runtime.
        stop: ends with a message.
    """
    endpoints = typer.Typer(help="Endpoints that events are sent to (outbound webhooks).", no_args_is_help=True)

    @endpoints.command("add")
    def endpoints_add(
        url: Annotated[str, typer.Argument(help="https://…")],
        events: Annotated[
            list[str] | None, typer.Option(help='Such as "contact.*" or "deal.updated"; repeat; default all.')
        ] = None,
        retry: Annotated[str, typer.Option(help="What differs from the retry policy, as JSON: '{\"maxAttempts\": 20}'.")] = "{}",
    ) -> None:
        """Send what happens from now on to an address; its secret is shown this once."""
        try:
            policy = json.loads(retry)
        except json.JSONDecodeError as error:
            stop(f"--retry: not JSON: {error}")
        if not isinstance(policy, dict):
            stop("--retry: not a JSON object")
        id, secret = run(lambda runtime: runtime.endpoints.add(WORKSPACE, url, events or ["*"], policy))
        typer.echo(f"{secret}\n(id {id}; the secret is not shown again)")

    @endpoints.command("list")
    def endpoints_list() -> None:
        """List endpoints, and how their deliveries go."""
        for each in run(lambda runtime: runtime.endpoints.all(WORKSPACE)):
            row, tally = each.row, each.tally
            rate = f"{tally.failed / tally.sends:.0%}" if tally.sends else "-"
            typer.echo(
                f"{row.id}  {row.state:<9} failing {rate:<5} waiting {tally.waiting:<6} parked {tally.parked:<6} "
                f"{','.join(row.events):<24} {row.url}{f'  ({row.reason})' if row.reason else ''}"
            )

    @endpoints.command("rotate")
    def endpoints_rotate(
        id: str, overlap: Annotated[float, typer.Option(min=0, help="Hours in which both secrets sign.")] = 24
    ) -> None:
        """Give an endpoint a new secret; it is shown this once."""
        typer.echo(run(lambda runtime: runtime.endpoints.rotate(WORKSPACE, id, overlap=timedelta(hours=overlap))))

    @endpoints.command("replay")
    def endpoints_replay(
        id: str,
        parked: Annotated[bool, typer.Option("--parked", help="All that was given up.")] = False,
        since: Annotated[str | None, typer.Option(help="All that happened after this cursor.")] = None,
        event: Annotated[str | None, typer.Option(help="One event, by its id.")] = None,
    ) -> None:
        """Send again what an endpoint has missed, under the same ids."""
        if [parked, since is not None, event is not None].count(True) != 1:
            stop("say either --parked, or --since, or --event")

        async def replayed(runtime: Runtime) -> int:
            if since is not None:
                return await runtime.endpoints.replay_since(WORKSPACE, id, number_of(since))
            if event is not None:
                return await runtime.endpoints.replay_event(WORKSPACE, id, number_of(event))
            return await runtime.endpoints.replay_parked(WORKSPACE, id)

        typer.echo(f"{run(replayed)} to be sent again")

    @endpoints.command("remove")
    def endpoints_remove(id: str) -> None:
        """Forget an endpoint, and what it was still to be sent."""
        run(lambda runtime: runtime.endpoints.remove(WORKSPACE, id))

    return endpoints

"""The command line: `c360 demo`, `serve`, `sandbox`, `schema`, `systems`, `sources`, `endpoints`, `keys`, `query`."""

import asyncio
import gc
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import httpx
import typer
import uvicorn

from adapters import overview
from adapters.registry import discovered
from gateway.app import WORKSPACE, Runtime, create
from gateway.callers import ALL_SCOPES
from gateway.endpoints import commands
from gateway.settings import Settings, load, parse_sources
from model.errors import C360Error, ConfigurationError
from schema.graph import sdl
from sources.reading import Reading
from sync.feeds import bound
from telemetry.logging import configure

DRAIN = 30  # seconds that requests under way are given when the process is told to stop

app = typer.Typer(
    name="c360", help="One Customer 360 graph over the systems you already have.", no_args_is_help=True, add_completion=False
)
keys = typer.Typer(help="API keys of callers.", no_args_is_help=True)
sources = typer.Typer(help="Connected sources.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(sources, name="sources")
T = TypeVar("T")

Port = Annotated[int, typer.Option(min=1, max=65535)]
People = Annotated[int, typer.Option(min=1, max=1_000_000, help="People in the sandbox.")]
Seed = Annotated[int, typer.Option(help="The same seed is the same world.")]


def main() -> None:
    """Run the command line; a mistake in the settings is one line and exit code 2."""
    try:
        app()
    except ConfigurationError as error:
        _stop(error.message)


@app.command()
def demo(
    port: Port = 8000,
    sandbox_port: Port = 8900,
    people: People = 1000,
    seed: Seed = 1,
    live: Annotated[bool, typer.Option("--live", help="Let people in the sandbox change records all the time.")] = False,
) -> None:
    """Start the sandbox and the gateway together, everything connected, on loopback and without a key."""
    import sandbox.app as vendors  # the one place where the product meets the sandbox

    configure("WARNING")
    world = vendors.Sandbox(people=people, seed=seed)
    address = f"http://127.0.0.1:{sandbox_port}"
    connected = [
        {
            "id": name,
            "system": name,
            "base_url": dialect.address(address),
            "auth": dict(dialect.demo_auth()),
            "options": dict(dialect.demo_options(address)),
        }
        for name, dialect in world.dialects.items()
    ]
    with ExitStack() as stack:
        # A folder of its own: the sandbox forgets its tokens when it stops, and so must we.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="c360-demo-"))
        gateway = f"http://127.0.0.1:{port}"
        settings = load(None, {}, data_dir=folder, port=port, require_key=False, sources=connected, public_url=gateway)
        listening = [
            stack.enter_context(_listening("127.0.0.1", each, option))
            for each, option in ((sandbox_port, "--sandbox-port"), (port, "--port"))
        ]
        print(_welcome(gateway, address, people, len(world.dialects), world.world.people[0].email), flush=True)

        async def beside(runtime: Runtime) -> None:
            await _entered(runtime, world.dialects)
            if live:
                await vendors.living(world)

        _run([vendors.server(world)], listening, settings, beside)


async def _entered(runtime: Runtime, vendors: Mapping[str, Any]) -> None:
    """Be the administrator who enters address and secret where a vendor takes them by hand only."""
    missing = {each.id: each for each in runtime.registry.of(WORKSPACE) if each.adapter.push and not each.adapter.push.subscribes}
    while missing:
        for id, source in list(missing.items()):
            if runtime.hooks.state(id) is not None:
                secret, address = await runtime.hooks.proved_by(source), runtime.hooks.address(id)
                vendors[source.system].hook(address, secret)
                del missing[id]
        await asyncio.sleep(0.5)


@app.command()
def serve(
    config: Annotated[Path | None, typer.Option(help="Default: $C360_CONFIG, else ./c360.toml.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; loopback unless told otherwise.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
) -> None:
    """Serve the graph."""
    settings = load(config, host=host, port=port)
    if not settings.require_key and not _is_loopback(settings.host):
        raise ConfigurationError("require_key: may be off on loopback only; host is another address")
    configure(settings.log_level)
    with _listening(settings.host, settings.port, "--port") as listening:
        _run([], [listening], settings)


@app.command()
def sandbox(
    port: Port = 8900,
    people: People = 1000,
    seed: Seed = 1,
    tls_port: Annotated[int | None, typer.Option(min=1, max=65535)] = None,
) -> None:
    """Serve the vendor world alone, on loopback."""
    import sandbox.app as vendors

    configure("WARNING")
    world = vendors.Sandbox(people=people, seed=seed)
    with ExitStack() as stack:
        listening = [stack.enter_context(_listening("127.0.0.1", port, "--port"))]
        servers = [vendors.server(world)]
        if tls_port is not None:
            listening.append(stack.enter_context(_listening("127.0.0.1", tls_port, "--tls-port")))
            servers.append(vendors.server(world, tls=True))
        print(
            f"sandbox: http://127.0.0.1:{port}/{{{','.join(world.dialects)}}}  controls: http://127.0.0.1:{port}/_control",
            flush=True,
        )
        _run(servers, listening)


@app.command()
def schema() -> None:
    """Print the graph's SDL."""
    sys.stdout.write(sdl())


@app.command()
def systems(
    markdown: Annotated[bool, typer.Option("--markdown", help="As docs/systems.md, with every limit.")] = False,
) -> None:
    """List the systems there are adapters for."""
    adapters = discovered(load().adapters)
    if markdown:
        sys.stdout.write(overview.page(adapters.values()))
        return
    print(f"{'system':<12} {'api':<10} {'evidence':<9} {'real time':<10} {'kinds (* is written)':<42} verbs")
    for name, adapter in sorted(adapters.items()):
        bound = f"{adapter.live.bound:.0f} s" if adapter.live.bound is not None else "no bound"
        kinds = ", ".join(f"{kind}*" if facts.verbs else kind for kind, facts in adapter.kinds.items())
        print(
            f"{name:<12} {adapter.api_version:<10} {adapter.evidence:<9} {bound:<10} {kinds:<42} {' '.join(overview.verbs(adapter))}"
        )


@app.command()
def query(
    document: Annotated[str, typer.Argument(help="A GraphQL document, or - to read it from standard input.")],
    url: Annotated[str, typer.Option(help="The gateway's endpoint.")] = "http://127.0.0.1:8000/graphql",
    variables: Annotated[str, typer.Option(help="Variables as JSON.")] = "{}",
    key: Annotated[str | None, typer.Option(envvar="C360_API_KEY", help="An API key.")] = None,
) -> None:
    """Ask a running gateway, and print its answer."""
    text = sys.stdin.read() if document == "-" else document
    try:
        body = {"query": text, "variables": json.loads(variables)}
        answer = httpx.post(url, json=body, headers={"authorization": f"Bearer {key}"} if key else {}, timeout=60)
        print(json.dumps(answer.json(), indent=2, ensure_ascii=False))
    except json.JSONDecodeError as error:
        _stop(f"not JSON: {error}")
    except httpx.HTTPError as error:
        _stop(f"{url} did not answer: {error}")
    if "errors" in answer.json():
        raise typer.Exit(1)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    scope: Annotated[list[str] | None, typer.Option(help=f"Any of {', '.join(ALL_SCOPES)}; default read.")] = None,
) -> None:
    """Make an API key; it is shown this once."""
    scopes = scope or ["read"]
    if unknown := set(scopes) - set(ALL_SCOPES):
        _stop(f"--scope: there is no {unknown.pop()!r}; there are: {', '.join(ALL_SCOPES)}")
    row, key = _with(lambda runtime: runtime.callers.create(WORKSPACE, name, scopes, now=datetime.now(UTC)))
    print(f"{key}\n(id {row.id}, scopes {', '.join(row.scopes)}; it is not shown again)")


@keys.command("list")
def keys_list() -> None:
    """List API keys, without their secrets."""
    for row in _with(lambda runtime: runtime.callers.all(WORKSPACE)):
        print(f"{row.id}  {row.name:<24} {','.join(row.scopes):<24} {'revoked' if row.revoked_at else 'active'}")


@keys.command("revoke")
def keys_revoke(id: str) -> None:
    """Make a key useless at once."""
    if not _with(lambda runtime: runtime.callers.revoke(WORKSPACE, id, now=datetime.now(UTC))):
        _stop(f"there is no active key {id!r}")


@sources.command("add")
def sources_add(
    id: Annotated[str, typer.Argument(help="Lower-case name, such as hubspot-eu.")],
    system: Annotated[str, typer.Option()],
    auth: Annotated[list[str], typer.Option(help="name=value, such as scheme=token and token_env=HUBSPOT_TOKEN; repeat.")],
    base_url: Annotated[str | None, typer.Option(help="May be left out where the credentials tell it.")] = None,
    label: Annotated[str | None, typer.Option()] = None,
    region: Annotated[str, typer.Option(help="ISO country for phone numbers written nationally.")] = "US",
) -> None:
    """Connect a source, after its credentials were proved."""
    said = dict(part.partition("=")[::2] for part in auth)
    source = {"id": id, "system": system, "base_url": base_url, "auth": said, "label": label, "region": region}
    [parsed] = parse_sources([source])

    async def add(runtime: Runtime) -> str:
        if any(each.id == id for each in runtime.registry.of(WORKSPACE)):
            raise ConfigurationError(f"there is a source {id!r} already; remove it first")
        await runtime.connect(parsed, rank=len(runtime.registry.of(WORKSPACE)))
        try:
            return await _checked(runtime, id)
        except BaseException:
            await runtime.source_rows.remove(WORKSPACE, id)
            raise

    print(_with(add))


@sources.command("check")
def sources_check(id: str) -> None:
    """Prove a source's credentials with the cheapest call."""

    print(_with(lambda runtime: _checked(runtime, id)))


@sources.command("pause")
def sources_pause(id: str, resume: Annotated[bool, typer.Option("--resume", help="Ask it again.")] = False) -> None:
    """Stop asking a source, without forgetting it."""
    if not _with(lambda runtime: runtime.source_rows.set_state(WORKSPACE, id, "CONNECTED" if resume else "PAUSED")):
        _stop(f"there is no source {id!r}")


@sources.command("remove")
def sources_remove(id: str) -> None:
    """Forget a source and its credentials."""
    if not _with(lambda runtime: runtime.source_rows.remove(WORKSPACE, id)):
        _stop(f"there is no source {id!r}")


@app.command()
def erase(customer: Annotated[str, typer.Argument(help="The customer's id.")]) -> None:
    """Erase what is kept here about a customer: identity, events, what waits, caches. Their systems are left as they are."""
    many = _with(lambda runtime: runtime.erasure.customer(WORKSPACE, customer))
    print(f"erased: {many} record{'' if many == 1 else 's'}")


@app.command()
def watch(
    source: Annotated[str | None, typer.Argument(help="One source; default all.")] = None,
    rotate: Annotated[bool, typer.Option("--rotate", help="With a new secret; the one before it stays good for a day.")] = False,
    end: Annotated[bool, typer.Option("--end", help="End the subscriptions.")] = False,
    show_secret: Annotated[bool, typer.Option("--show-secret", help="For systems where an administrator enters it.")] = False,
) -> None:
    """Subscribe to what systems tell by themselves, and show how each is told of."""

    async def look(runtime: Runtime) -> list[str]:
        await runtime.hooks.refresh()
        chosen = [each for each in runtime.registry.of(WORKSPACE) if source is None or each.id == source]
        if not chosen:
            raise ConfigurationError(f"there is no source {source!r}")
        lines = [f"{'source':<16} {'webhooks':<9} {'subscriptions':<13} {'bound':<7} address"]
        for each in chosen:
            if each.adapter.push is None:
                lines.append(f"{each.id:<16} {'none':<9} {'-':<13} {bound(each):<5.0f} s -")
                continue
            if end:
                await runtime.hooks.end(each)
            else:
                await runtime.hooks.look_after(each, rotate=rotate)
            now = runtime.health.webhooks(each)
            if now is None:
                continue
            told = f"{now.address or 'set public_url'}{f' ({now.reason})' if now.reason else ''}"
            lines.append(f"{each.id:<16} {now.state:<9} {now.subscriptions:<13} {bound(each):<5.0f} s {told}")
            if show_secret and (secret := runtime.hooks.secret(each)) is not None:
                lines.append(f"{'':<16} secret {secret}")
        return lines

    print("\n".join(_with(look)))


async def _checked(runtime: Runtime, id: str) -> str:
    row = next((each for each in await runtime.source_rows.all(WORKSPACE) if each.id == id), None)
    if row is None:
        raise ConfigurationError(f"there is no source {id!r}")
    source = await runtime.opener.open(row)
    checked = await source.check(Reading(deadline=runtime.clock.monotonic() + 15))
    return f"{id}: ok, {source.system} account {checked.account}"


def _with(work: Callable[[Runtime], Awaitable[T]]) -> T:
    """Run `work(runtime)` with an open runtime."""

    async def run() -> T:
        runtime = Runtime(load())
        await runtime.start()
        try:
            return await work(runtime)
        finally:
            await runtime.stop()

    configure("ERROR")
    try:
        return asyncio.run(run())
    except ConfigurationError:
        raise
    except C360Error as error:
        _stop(f"{error.code}: {error.message}")


class _Server(uvicorn.Server):
    """Breaks off subscriptions over HTTP before it waits for requests to end: they would not."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app: Any = self.config.app
        app.state.stop()
        await super().shutdown(sockets)


def _run(
    servers: Sequence[uvicorn.Server], listening: Sequence[socket.socket], settings: Settings | None = None,
    beside: Callable[[Runtime], Awaitable[None]] | None = None,
) -> None:  # fmt: skip
    """Serve until a signal, the gateway of `settings` last; when one server stops, all do. `beside` runs as long as they do."""

    async def run() -> None:
        async with AsyncExitStack() as stack:
            serving = list(servers)
            if settings is not None:
                app = create(settings)
                # Opened here and not by uvicorn, so that a mistake in the settings reaches `main` and not a stack trace.
                await stack.enter_async_context(app.router.lifespan_context(app))
                serving.append(_Server(uvicorn.Config(
                    app, log_config=None, access_log=False, server_header=False, lifespan="off", timeout_graceful_shutdown=DRAIN,
                    timeout_keep_alive=65, ws_max_size=settings.max_body, ws_per_message_deflate=False,
                )))  # fmt: skip
                if beside is not None:
                    work = asyncio.ensure_future(beside(app.state.runtime))
                    stack.callback(work.cancel)
            gc.collect()
            gc.freeze()  # what was made at the start lives as long as the process: the collector need not walk it again
            tasks = [asyncio.create_task(server.serve(sockets=[each])) for server, each in zip(serving, listening, strict=True)]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for server in serving:
                server.should_exit = True
            await asyncio.gather(*tasks)

    with suppress(KeyboardInterrupt):
        asyncio.run(run())


@contextmanager
def _listening(host: str, port: int, option: str) -> Iterator[socket.socket]:
    try:
        listening = socket.create_server((host, port), reuse_port=False)
    except OSError as error:
        _stop(f"{host}:{port} cannot be listened on ({error.strerror}): choose another {option}")
    with listening:
        yield listening


def _welcome(gateway: str, address: str, people: int, systems: int, email: str) -> str:
    # `make demo` runs us from an environment that is not on PATH.
    program = "c360" if shutil.which("c360") else os.path.relpath(sys.argv[0])
    one = f"{program} query '{{ customer(by: {{ email: \"{email}\" }}) {{ name emails sources {{ source {{ id }} state }} }} }}'"
    return (
        f"\n  customer360 demo: {people} people in {systems} systems\n\n"
        f"  graph     {gateway}/graphql   (open it in a browser)\n  sandbox   {address}/_control/people?limit=3\n\n"
        f"  try       {one} --url {gateway}/graphql\n\n  Ctrl-C stops both.\n"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stop(message: str) -> NoReturn:
    print(f"c360: {message}", file=sys.stderr)
    raise SystemExit(2)


app.add_typer(commands(_with, _stop), name="endpoints")

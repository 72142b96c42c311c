"""The composition root: every part is made once, here, and handed to those who need it."""

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute

from adapters.base import Adapter, Window
from adapters.registry import discovered
from cache.entries import Cache
from cache.memory import MemoryCache
from cache.redis import RedisCache, connect
from credentials.grants import GrantStore
from credentials.vault import Vault
from gateway import graphiql
from gateway.callers import Caller, identified
from gateway.errors import refusal
from gateway.execution import Engine
from gateway.graphql import GraphQLEndpoint
from gateway.health import health_routes
from gateway.hub import Hub
from gateway.limits import Limits
from gateway.security import KnownHosts, RequestId
from gateway.settings import Settings, SourceSettings
from gateway.sources import Opener, grant_of, row_of
from gateway.webhooks import webhook_route
from gateway.websocket import WebSocketEndpoint
from identity.index import IdentityIndex, minter
from model.clock import SystemClock
from model.errors import CallerUnknownError, ConfigurationError, SlowSubscriberError
from model.records import Kind, Ref
from resolvers.context import Context
from resolvers.cursors import Signer
from resolvers.order_push import ORDER_NAMES
from schema.graph import build
from sources.budget import Budget, LocalBudget
from sources.client import network
from sources.registry import Registry
from sources.shared_budget import SharedBudget
from sources.source import Source
from sources.writer import Writer
from store.callers import CallerRows
from store.credentials import CredentialRows
from store.cursors import CursorRows
from store.database import Database
from store.dead_letters import DeadLetterRows
from store.endpoints import EndpointRows
from store.events import EventRows
from store.hooks import HookRows
from store.inbox import InboxRows
from store.ledger import LedgerRows
from store.sources import SourceRows
from store.versions import VersionRows
from sync.applying import Applier
from sync.destinations import Destinations
from sync.endpoints import Endpoints
from sync.engine import LongWork, Place
from sync.erasure import Erasure
from sync.feeds import Feeds
from sync.followed import Followed
from sync.health import HealthBook
from sync.hooks import App, Hooks
from sync.intake import Intake
from sync.listing import Listing
from sync.log import EventLog
from sync.outbound import Outbound
from telemetry.metrics import Metrics

log = logging.getLogger(__name__)
WORKSPACE = "default"
GRACE = 3.0  # seconds after the start, and between two looks at what is to be listed
CLEARED = 3600.0  # seconds between two clearings of what is old
KEYS_KEPT = timedelta(days=30)  # idempotency keys; which deal an order became is kept for good
EXAMPLES = (
    (
        "# Everything connected knows about one customer\n"
        'query Customer {\n  customer(by: { email: "ada.king@northwind.example" }) {\n    name\n    emails\n    phones\n'
        "    contacts { ref { system } email phone title account { name } }\n"
        "    deals(first: 5) { nodes { ref { system } name amount { amount currency } stage { name category } } }\n"
        "    orders(first: 5) { nodes { number status total { amount currency } items { title quantity } } }\n"
        "    tickets(first: 5) { nodes { ref { system } subject status priority } }\n"
        "    timeline(first: 20) { nodes { __typename ... on Deal { name } ... on Order { number } ... on Ticket { subject } } }\n"
        "    sources { source { id } state calls latencyMs }\n  }\n}\n"
    ),
    (
        "# One list over every source, in one order\n"
        "query Customers($after: String) {\n  customers(first: 10, after: $after) {\n    nodes { id name primaryEmail refs { system recordId } }\n"
        "    pageInfo { hasNextPage endCursor }\n    sources { source { id } state calls exhausted retryAt }\n  }\n}\n"
    ),
    (
        "# Write to several systems in one call, once per key; a dry run tells what would be written\n"
        'mutation Upsert {\n  customerUpsert(\n    input: { emails: ["ada.king@northwind.example"], familyName: "King-Noel" }\n'
        '    options: { idempotencyKey: "try-1", targets: ["hubspot", "salesforce"], dryRun: true }\n  ) {\n'
        "    customer { name }\n    writes { source { id } state changed error { code message } }\n    userErrors { code message field }\n  }\n}\n"
    ),
    (
        "# Every change in every system, as it happens; `since` goes on from any event's cursor\n"
        "subscription Changes {\n  events(includeEchoes: true) {\n    op\n    object\n    ref { system recordId }\n    changed\n    at\n    cursor\n  }\n}\n"
    ),
)


class Runtime:
    """The parts of one process, open between `start` and `stop`."""

    loop: asyncio.AbstractEventLoop
    adapters: Mapping[str, type[Adapter]]
    database: Database
    vault: Vault
    callers: CallerRows
    source_rows: SourceRows
    grants: GrantStore
    opener: Opener
    ledger: LedgerRows
    index: IdentityIndex
    signer: Signer
    events: EventLog
    destinations: Destinations
    endpoints: Endpoints
    intake: Intake
    hooks: Hooks
    feeds: Feeds
    health: HealthBook
    followed: Followed

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.rng = random.Random(secrets.randbits(64))
        self.metrics = Metrics()
        self.registry = Registry()
        self._writers: dict[str, Writer] = {}
        self._redis: Redis | None = None
        self._closing = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Open everything.

        Raises:
            ConfigurationError: naming the setting that must change.
        """
        settings = self.settings
        self.loop = asyncio.get_running_loop()
        key = settings.key.get_secret_value() if settings.key else None
        self.vault = Vault.from_text(key) if key else Vault.from_file(settings.data_dir / "key")
        self.database = await Database.open(settings.database())
        self._closing.push_async_callback(self.database.close)
        self.callers, self.source_rows = CallerRows(self.database), SourceRows(self.database)
        self.ledger = LedgerRows(self.database)
        await self.ledger.clear(before=self.clock.now() - KEYS_KEPT, keeping=ORDER_NAMES)
        self.grants = GrantStore(CredentialRows(self.database), self.vault)
        self.index = IdentityIndex(self.database, clock=self.clock, mint=minter(self.clock, self.rng))
        self.signer = Signer(self.vault.derive("cursor"))
        transport = network()
        self._closing.push_async_callback(transport.aclose)
        self.adapters = discovered(settings.adapters)
        self.opener = Opener(
            adapters=self.adapters,
            cache=self._cache(),
            grants=self.grants,
            network=transport,
            budget=self._budget,
            clock=self.clock,
            rng=self.rng,
        )
        self._live()
        self.destinations = Destinations(settings.webhook_private_hosts)
        self.endpoint_rows = EndpointRows(self.database)
        self.endpoints = Endpoints(self.endpoint_rows, self.event_rows, self.vault, self.destinations, clock=self.clock)
        for rank, said in enumerate(settings.sources):
            await self.connect(said, rank=rank)
        for row in await self.source_rows.all(WORKSPACE):
            self.registry.put(await self.opener.open(row))

    def _live(self) -> None:
        """Make what hears of changes."""
        settings, failed = self.settings, self.metrics.redis_failures.labels("events").inc
        owner = f"{self.rng.getrandbits(64):016x}"
        self.inbox, self.letters = InboxRows(self.database), DeadLetterRows(self.database)
        self.event_rows = EventRows(self.database)
        self.events = EventLog(self.event_rows, WORKSPACE, redis=self._connected(), failed=failed)
        self.followed = Followed(self.events, self.index, WORKSPACE)
        applier = Applier(self.database, self.index, key=self.vault.derive("marks"), clock=self.clock)
        self.erasure = Erasure(self.database, self.index, self.vault, self.registry)
        self.intake = Intake(
            self.inbox, applier, self.events, self.letters, self.registry, owner=owner, clock=self.clock, rng=self.rng,
            count=lambda outcome, many, origin: self.metrics.changes.labels(outcome, origin).inc(many), erase=self._erase,
        )  # fmt: skip
        self.hooks = Hooks(
            HookRows(self.database), self.letters, self.ledger, self.vault, self.registry, workspace=WORKSPACE, owner=owner,
            apps=[App(id=each.id, system=each.system, secrets=[one.get_secret_value() for one in each.secrets]) for each in settings.apps],
            systems=self.adapters, client_secret=self._client_secret, public_url=str(settings.public_url) if settings.public_url else None,
            account=lambda source, account: self.source_rows.set_account(source.workspace, source.id, account), clock=self.clock,
            keep=self.intake.accept, refused=lambda why: self.metrics.webhooks.labels(why).inc(),
        )  # fmt: skip
        self.cursors = CursorRows(self.database)
        self.listing = Listing(
            self.cursors, VersionRows(self.database), self.intake, self.registry, workspace=WORKSPACE, clock=self.clock
        )
        url = settings.database()
        place = Place(url=url) if self.database.is_postgresql else Place(file=Path(f"{url.removeprefix('sqlite:///')}-engine"))
        executor = owner if self.database.is_postgresql else "embedded"
        self.engine = LongWork(place, self.listing, self.ledger, executor=executor, clock=self.clock)
        self.feeds = Feeds(
            self.cursors, self.intake, self.ledger, self.registry, workspace=WORKSPACE, owner=owner, clock=self.clock,
            told_anyway=self._told_anyway, count=lambda system, outcome: self.metrics.feeds.labels(system, outcome).inc(),
        )  # fmt: skip
        self.health = HealthBook(self.hooks, self.feeds, self.inbox)

    def _told_anyway(self, source: Source, kind: Kind) -> bool:
        push, row = source.adapter.push, self.hooks.state(source.id)
        return push is not None and kind in push.kinds and row is not None and row.state == "WATCHED"

    async def _client_secret(self, source: Source) -> str:
        known = await self.grants.load(source.workspace, source.id)
        return known[1].client_secret if known is not None else ""

    async def _erase(self, workspace: str, ref: Ref) -> None:
        await self.erasure.records(workspace, [ref])

    async def serve(self) -> None:
        """Begin what only a process that serves does, not a command beside it."""
        await self.events.start()
        self._closing.push_async_callback(self.events.stop)
        if not self.database.is_postgresql:
            await self.inbox.release(now=self.clock.now())
        await self.hooks.refresh()
        self._closing.push_async_callback(self.hooks.stop)
        self.intake.start()
        self._closing.push_async_callback(self.intake.stop)
        if self.database.is_postgresql and self._redis is None:
            self._closing.push_async_callback(_ended, asyncio.create_task(self._hear_of_others()))
        if self.settings.follow:
            working = asyncio.create_task(self._long_work())
            self._closing.push_async_callback(self.engine.stop)
            self._closing.push_async_callback(_ended, working)
        if not self.database.is_postgresql:
            await self.ledger.release_all()  # only one process serves from SQLite: those of one that is gone
        await self._deliver()

    async def _deliver(self) -> None:
        """Begin to send events to the endpoints of our users."""
        # Of its own: endpoints that hang must not take lines that sources need. A POST on a line that the other side just ended is a
        # failed send, so lines are used again only while nobody ends them yet.
        transport = network(connections=200, idle=1.0)
        self._closing.push_async_callback(transport.aclose)
        outbound = Outbound(
            self.endpoint_rows, self.endpoints, self.event_rows, self.ledger, WORKSPACE, network=transport,
            destinations=self.destinations, owner=f"{self.rng.getrandbits(64):016x}", clock=self.clock, rng=self.rng, follow=self.events,
            counted=lambda outcome: self.metrics.outbound.labels(outcome).inc(),
        )  # fmt: skip
        await outbound.start()
        self._closing.push_async_callback(outbound.stop)

    async def _hear_of_others(self) -> None:
        """Let what is cached in this process be too old once another process applied a change: without Redis each has a cache of its own."""
        while True:
            try:
                async for event in self.events.follow():
                    source = next((each for each in self.registry.of(event.workspace) if each.id == event.ref.source), None)
                    if source is not None and source.has(event.ref.kind):
                        await source.touched(event.ref.kind, [event.ref.native_id])
                return
            except SlowSubscriberError:
                for each in self.registry.of(WORKSPACE):
                    await each.forget()

    async def _long_work(self) -> None:
        """Subscribe, ask feeds, and list what is not known yet: once the first callers were served, for it takes its time."""
        await asyncio.sleep(GRACE)
        self.hooks.start()
        self.feeds.start()
        self._closing.push_async_callback(self.feeds.stop)
        cleared = 0.0
        while True:
            await asyncio.sleep(GRACE)
            try:
                if self.clock.monotonic() - cleared > CLEARED:
                    await self._clear()
                    cleared = self.clock.monotonic()
                await self.engine.start()
                await self.engine.begin_what_is_due(list(self.feeds.known.values()))
            except Exception as error:  # noqa: BLE001 - the store or the engine in trouble: look again
                log.warning("long work cannot be begun", extra={"error.type": type(error).__name__})

    async def _clear(self) -> None:
        """Forget what is old: events, and what the inbox knows of deliveries that were settled."""
        before = self.clock.now() - timedelta(days=self.settings.keep_events)
        await self.event_rows.clear(WORKSPACE, before=before, most=self.settings.keep_most)
        await self.inbox.clear(before=before, most=self.settings.keep_most)
        await self.ledger.clear(before=self.clock.now() - KEYS_KEPT, keeping=ORDER_NAMES)

    async def stop(self) -> None:
        for writer in self._writers.values():
            await writer.finished()
        await self._closing.aclose()

    def writer(self, workspace: str) -> Writer:
        """Return the one writer of a workspace."""
        if workspace not in self._writers:
            owner = f"{self.rng.getrandbits(64):016x}"
            wrote = self.intake.written if self.settings.follow else None
            self._writers[workspace] = Writer(self.ledger, workspace=workspace, owner=owner, clock=self.clock, wrote=wrote)
        return self._writers[workspace]

    async def connect(self, said: SourceSettings, *, rank: int) -> None:
        """Store a source; rotated tokens that were stored since are kept while the configured secrets stay the same."""
        grant = grant_of(said, self.adapters)
        row = row_of(said, workspace=WORKSPACE, rank=rank, home=self.adapters[said.system].home(said.auth.secrets()))
        known = await self.grants.load(WORKSPACE, said.id)
        if known is None or not known[1].same_secrets(said.auth.secrets()):
            await self.grants.save(WORKSPACE, said.id, grant, version=known[0] + 1 if known else 1)
        await self.source_rows.put(row)

    async def missing(self) -> Sequence[str]:
        """Return what keeps this process from serving."""
        try:
            async with self.database.read() as connection:
                await connection.exec_driver_sql("select 1")
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is "not ready"
            log.warning("database unavailable", extra={"error.type": type(error).__name__})
            return ["database"]
        return []

    async def context(self, request: HTTPConnection, caller: Caller) -> Context:
        settings = self.settings
        now = partial(self.registry.of, caller.workspace)
        return Context(
            workspace=caller.workspace, scopes=caller.scopes, sources=now(), now=now, index=self.index, signer=self.signer,
            writer=self.writer(caller.workspace), events=self.events, followed=self.followed, health=self.health, endpoints=self.endpoints,
            clock=self.clock, started=self.clock.monotonic(), deadline=settings.deadline, request=request,
        )  # fmt: skip

    async def identify(self, request: HTTPConnection) -> Caller:
        return await self.recognise(request.headers)

    async def recognise(self, headers: Mapping[str, str]) -> Caller:
        return await identified(headers, self.callers, require_key=self.settings.require_key)

    def _cache(self) -> Cache:
        if (redis := self._connected()) is not None:
            return RedisCache(redis, failed=self.metrics.redis_failures.labels("cache").inc)
        return MemoryCache(clock=self.clock)

    def _budget(self, windows: Iterable[Window], *, account: str) -> Budget:
        if (redis := self._connected()) is not None:
            failed = self.metrics.redis_failures.labels("budget").inc
            return SharedBudget(windows, redis=redis, account=account, clock=self.clock, rng=self.rng, failed=failed)
        return LocalBudget(windows, clock=self.clock)

    def _connected(self) -> Redis | None:
        if self._redis is None and self.settings.redis_url is not None:
            try:
                self._redis = connect(self.settings.redis_url.get_secret_value())
            except ValueError as error:
                raise ConfigurationError("redis_url must be redis://… or rediss://…") from error
            self._closing.push_async_callback(self._redis.aclose)
        return self._redis


def create(settings: Settings) -> Starlette:
    """Return the app; its parts open when it starts and close when it stops."""
    runtime = Runtime(settings)
    limits = Limits(tokens=settings.max_tokens, depth=settings.max_depth, aliases=settings.max_aliases)
    schema = build(email_key=settings.email_key, introspection=settings.introspection)
    engine = Engine(schema, context=runtime.context, limits=limits, introspection=settings.introspection)
    hub = Hub(engine, runtime.metrics)
    endpoint = GraphQLEndpoint(
        engine,
        hub,
        identify=runtime.identify,
        max_body=settings.max_body,
        queue=settings.subscriber_queue,
        metrics=runtime.metrics,
    )
    socket = WebSocketEndpoint(
        engine, hub, recognise=runtime.recognise, most=settings.max_operations, queue=settings.subscriber_queue, max_body=settings.max_body
    )  # fmt: skip

    async def graphql(request: Request) -> Response:
        if settings.graphiql and graphiql.wants_page(request):
            return graphiql.page(EXAMPLES)
        return await endpoint(request)

    async def home(_: Request) -> Response:
        return RedirectResponse("/graphql")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        app.state.loop = asyncio.get_running_loop()
        await runtime.start()
        await runtime.serve()
        try:
            yield
        finally:
            await runtime.stop()

    middleware = [
        Middleware(RequestId),
        Middleware(KnownHosts, hosts=settings.allowed_hosts, origins=settings.cors_origins),
        Middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "last-event-id", "x-api-key", "x-request-id"], expose_headers=["x-request-id"],
        ),
    ]  # fmt: skip
    routes: list[Any] = [
        Route("/", home),
        *([graphiql.assets()] if settings.graphiql else []),
        Route("/graphql", graphql, methods=["GET", "POST"]),
        webhook_route(
            lambda: runtime.hooks,
            metrics=runtime.metrics,
            now=runtime.clock.now,
            max_body=settings.max_webhook,
            public_url=str(settings.public_url) if settings.public_url else None,
        ),
        WebSocketRoute("/graphql", socket),
        *health_routes(runtime.missing, runtime.metrics, runtime.identify),
    ]
    handlers = {CallerUnknownError: _unauthenticated}
    app = Starlette(routes=routes, middleware=middleware, lifespan=lifespan, exception_handlers=handlers)
    app.state.runtime = runtime
    app.state.stop = endpoint.stop
    return app


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _unauthenticated(_: Request, error: Exception) -> Response:
    return JSONResponse(
        refusal("UNAUTHENTICATED", str(error)), status_code=401, headers={"www-authenticate": 'Bearer realm="customer360"'}
    )

"""Webhooks: who may send them, which subscriptions there are, and keeping those alive.

An *app* is an address at which systems deliver: `/webhooks/{app}`. Each source that can be told of changes has one of its own, under its
id; one that is configured serves every source of its system, told apart by the account that deliveries name.
"""

import asyncio
import logging
import secrets as randomness
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from adapters.base import Adapter
from adapters.changes import Delivery, Heard, Push
from credentials.vault import Vault
from model.clock import Clock
from model.errors import C360Error, NotFoundError, ProtocolError, SignatureError
from sources.reading import Reading
from sources.registry import Registry
from sources.source import Source
from store.dead_letters import DeadLetter, DeadLetterRows
from store.hooks import HookRow, HookRows
from store.inbox import Arrived
from store.ledger import LedgerRows

log = logging.getLogger(__name__)

LOOK_AFTER = timedelta(hours=1)  # between two looks at the subscriptions of a source
_TRY_AGAIN = timedelta(minutes=1)
_ROTATION = timedelta(hours=24)  # for which an older secret is good besides
_WAIT = 30.0  # seconds for looking after one source
_SOON = 5.0  # seconds between two looks at what is due
_SECRETS = 20
_NOTED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A configured app. `secrets`: the current one first, and during a rotation the one before it."""

    id: str
    system: str
    secrets: Sequence[str]


class _Secret(msgspec.Struct, frozen=True):
    secret: str
    until: datetime | None = None  # None: the current one


class Hooks:
    """Apps and their subscriptions.

    Args:
        client_secret: returns the client secret a source is configured with, "" where there is none.
        public_url: where systems reach us; None: nothing can be subscribed.
        keep: keeps events, see `Intake.accept`.
        refused: told why a delivery was not taken: "unknown_app", "unknown_account", "signature", "unreadable".
    """

    def __init__(
        self, rows: HookRows, letters: DeadLetterRows, ledger: LedgerRows, vault: Vault, registry: Registry, *, workspace: str, owner: str,
        apps: Sequence[App], systems: Mapping[str, type[Adapter]], client_secret: Callable[[Source], Awaitable[str]],
        account: Callable[[Source, str], Awaitable[None]], public_url: str | None, clock: Clock,
        keep: Callable[[Sequence[Arrived]], Awaitable[int]], refused: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._rows, self._letters, self._ledger, self._vault, self._registry = rows, letters, ledger, vault, registry
        self._workspace, self._owner, self._systems, self._clock = workspace, owner, systems, clock
        self._apps = {app.id: app for app in apps}
        self._client_secret, self._account, self._public_url = client_secret, account, public_url
        self._keep, self._refused = keep, refused
        self._known: dict[str, HookRow] = {}
        self._looked: set[str] = set()  # sources that were looked after since this process began: it may have been away for long
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep subscriptions alive from now on."""
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    async def refresh(self) -> None:
        """Learn what is there, whichever process made it."""
        self._known = {row.app: row for row in await self._rows.all() if row.workspace == self._workspace}

    def state(self, source: str) -> HookRow | None:
        """Return what is known of a source's own webhooks."""
        return self._known.get(source)

    def address(self, app: str) -> str | None:
        """Return where systems deliver for an app; None while nobody said where we are reached."""
        return f"{self._public_url.rstrip('/')}/webhooks/{app}" if self._public_url else None

    # ---- deliveries ----

    async def receive(self, app: str, delivery: Delivery) -> Heard:
        """Prove a delivery, keep its events, and return what is to be answered. What it holds is durable then.

        Raises:
            NotFoundError: there is no such app, or no source has the account it names.
            SignatureError: it is not proved.
            Exception: the store cannot keep it: the system shall send it again.
        """
        system, sources = self._served(app)
        if system is None:
            self._refused("unknown_app")
            raise NotFoundError("there is no such app")
        said: Heard
        try:
            said = self._systems[system].events(delivery, await self._secrets(app, sources))
        except SignatureError:
            self._refused("signature")
            raise
        except ProtocolError as error:
            await self._park(app, sources, delivery, error)
            return Heard()
        if said.account is not None:
            sources = [each for each in sources if each.account in (said.account, None)]
            known = [each for each in sources if each.account == said.account]
            sources = known or (sources if len(sources) == 1 and app not in self._apps else [])
        if not sources:
            self._refused("unknown_account")
            raise NotFoundError("no source has this account")
        await self._keep([
            Arrived(
                workspace=self._workspace, source=source.id, event=hint.id, kind=hint.change.kind, native_id=hint.change.native_id,
                op=hint.change.op, into=hint.change.into, at=hint.change.at, received_at=delivery.at, origin="WEBHOOK",
            )
            for source in sources
            for hint in said.hints
        ])  # fmt: skip
        await self._note(app, delivery.at)
        return said

    async def _note(self, app: str, now: datetime) -> None:
        """Write down that an app was heard of: seldom, a delivery shall cost one commit."""
        if (row := self._known.get(app)) is not None and (row.heard_at is None or now - row.heard_at > _NOTED):
            self._known[app] = msgspec.structs.replace(row, heard_at=now)
            await self._rows.heard(self._workspace, app, now=now)

    def _served(self, app: str) -> tuple[str | None, list[Source]]:
        sources = self._registry.of(self._workspace)
        if (configured := self._apps.get(app)) is not None:
            return configured.system, [each for each in sources if each.system == configured.system]
        own = next((each for each in sources if each.id == app and each.adapter.push is not None), None)
        return (own.system, [own]) if own is not None else (None, [])

    async def _secrets(self, app: str, sources: Sequence[Source]) -> list[str]:
        if (configured := self._apps.get(app)) is not None:
            return list(configured.secrets)
        found = [each.secret for each in self._opened(app) if each.until is None or each.until > self._clock.now()]
        if not found:  # another process may have made them since
            await self.refresh()
            found = [each.secret for each in self._opened(app)]
        if (own := await self._client_secret(sources[0])) and _push(sources[0]).secret == "app":
            found.insert(0, own)
        return found

    async def _park(self, app: str, sources: Sequence[Source], delivery: Delivery, error: ProtocolError) -> None:
        """Keep a delivery that is proved and cannot be understood: it was accepted, so it is not thrown away."""
        self._refused("unreadable")
        now, id = self._clock.now(), f"webhook:{randomness.token_hex(12)}"
        letter = DeadLetter(
            workspace=self._workspace, id=id, source=sources[0].id if sources else app, operation="webhook", code=error.code,
            message=error.message, attempts=1, first_at=now, last_at=now,
            sealed=self._vault.seal(delivery.body, bound_to=f"letter:{self._workspace}:{id}"),
        )  # fmt: skip
        await self._letters.park([letter], now=now)

    # ---- subscriptions ----

    async def look_after(self, source: Source, *, rotate: bool = False) -> HookRow:
        """Make the system tell of a source's changes, or renew what is there; return what there is now.

        Args:
            rotate: with a new secret; the one before it stays good for a day.
        """
        push, now = _push(source), self._clock.now()
        terms = Reading(deadline=self._clock.monotonic() + _WAIT, lane="sync")
        row, known = self._known.get(source.id), self._opened(source.id)
        if rotate or not any(each.until is None for each in known):
            older = [_Secret(each.secret, each.until or now + _ROTATION) for each in known]
            known = [_Secret(randomness.token_hex(20)), *older] if push.secret == "ours" else older
        known = [each for each in known if each.until is None or each.until > now]
        state, reason, watches, expires = "MANUAL", None, [] if row is None else list(row.watches), None
        try:
            if source.account is None or push.accounts:
                checked = await source.check(terms)
                source.account = checked.account
                await self._account(source, checked.account)
            url = self.address(source.id)
            if push.subscribes and url is not None:
                found = await source.watch(url, known[0].secret if known and push.secret == "ours" else "", terms)
                issued = [_Secret(each.secret) for each in found if each.secret is not None]
                known = [*issued, *(each for each in known if each not in issued)][:_SECRETS]
                watches = [each.native_id for each in found]
                expires = min((each.expires_at for each in found if each.expires_at is not None), default=None)
                state = "WATCHED"
        except C360Error as error:
            state, reason = "FAILED", f"{error.code}: {error.message}"[:500]
        return await self._keep_row(source, known, state=state, reason=reason, watches=watches, expires_at=expires, now=now)

    async def end(self, source: Source) -> int:
        """End a source's subscriptions; return how many there were."""
        url = self.address(source.id)
        terms = Reading(deadline=self._clock.monotonic() + _WAIT, lane="sync")
        many = await source.unwatch(url, terms) if url is not None and _push(source).subscribes else 0
        await self._keep_row(
            source, self._opened(source.id), state="OFF", reason=None, watches=[], expires_at=None, now=self._clock.now()
        )
        return many

    def secret(self, source: Source) -> str | None:
        """Return the secret that an administrator enters at the system; None where there is none of ours."""
        return next((each.secret for each in self._opened(source.id) if each.until is None), None)

    async def proved_by(self, source: Source) -> str:
        """Return what deliveries of a source are proved with now: our secret, or its app's; "" where there is none yet."""
        if _push(source).secret == "app":
            return await self._client_secret(source)
        return self.secret(source) or ""

    async def _keep_row(
        self, source: Source, known: Sequence[_Secret], *, state: str, reason: str | None, watches: list[str], expires_at: datetime | None,
        now: datetime,
    ) -> HookRow:  # fmt: skip
        row = self._known.get(source.id)
        version = row.version + 1 if row is not None else 1
        sealed = self._vault.seal(msgspec.msgpack.encode(list(known)), bound_to=self._bound(source.id, version))
        made = HookRow(
            workspace=self._workspace, app=source.id, system=source.system, version=version, sealed=sealed, state=state,  # type: ignore[arg-type]
            reason=reason, watches=watches, checked_at=now, expires_at=expires_at, heard_at=row.heard_at if row is not None else None,
        )  # fmt: skip
        if not await self._rows.put(made):
            await self.refresh()
            return self._known[source.id]
        self._known[source.id] = made
        return made

    def _opened(self, app: str) -> list[_Secret]:
        row = self._known.get(app)
        if row is None:
            return []
        return msgspec.msgpack.decode(self._vault.open(row.sealed, bound_to=self._bound(app, row.version)), type=list[_Secret])

    def _bound(self, app: str, version: int) -> str:
        return f"hook:{self._workspace}:{app}:{version}"

    async def _run(self) -> None:
        while True:
            try:
                await self.refresh()
                for source in self._registry.of(self._workspace):
                    if source.adapter.push is not None and source.state == "CONNECTED" and self._due(source):
                        await self._alone(source)
            except Exception as error:  # noqa: BLE001 - a store in trouble: look again
                log.warning("webhooks cannot be looked after", extra={"error.type": type(error).__name__})
            await asyncio.sleep(_SOON)

    async def _alone(self, source: Source) -> None:
        """Look after a source, if no other process does."""
        name, now = f"watch:{source.id}", self._clock.now()
        if not await self._ledger.lease(self._workspace, name, self._owner, now=now, until=now + timedelta(seconds=2 * _WAIT)):
            return
        self._looked.add(source.id)
        try:
            await self.look_after(source)
        except Exception as error:  # noqa: BLE001 - one source's trouble must not keep the others waiting
            log.warning("webhooks cannot be looked after", extra={"system": source.system, "error.type": type(error).__name__})
        finally:
            await self._ledger.release(self._workspace, name, self._owner)

    def _due(self, source: Source) -> bool:
        row, now = self._known.get(source.id), self._clock.now()
        if row is None or row.checked_at is None:
            return True
        if row.state == "OFF":
            return False
        if source.id not in self._looked:
            return True
        wait = _TRY_AGAIN if row.state == "FAILED" else LOOK_AFTER
        if (life := _push(source).life) is not None:
            wait = min(wait, timedelta(seconds=life / 3))
        ends = row.expires_at - timedelta(seconds=(_push(source).life or 0) / 3) if row.expires_at is not None else None
        return now - row.checked_at >= wait or (ends is not None and now >= ends and now - row.checked_at >= _TRY_AGAIN)


def _push(source: Source) -> Push:
    if source.adapter.push is None:
        raise NotFoundError("this system sends no webhooks")
    return source.adapter.push

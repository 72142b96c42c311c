"""A token is renewed once for everybody, and durable before it is used."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from credentials.flows import Fixed, Renewing, TokenAnswer
from credentials.grants import Grant, GrantStore
from credentials.schemes import Basic, Login, OAuth, Token
from credentials.vault import Vault
from model.errors import GrantLostError, ThrottledError, UnavailableError
from store.credentials import CredentialRows
from store.database import Database
from tests.clocks import ManualClock

OAUTH = OAuth(token_path="/token")
FIRST = {"scheme": "oauth", "client_id": "app", "client_secret": "s", "refresh_token": "refresh-0"}


class Vendor:
    """Issues tokens; every refresh token is good once, and dead from then on."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.refresh, self.access = "refresh-0", ""
        self.fault: UnavailableError | None = None
        self.seen: list[str] = []

    async def exchange(self, url: str, fields: Mapping[str, str], encoding: str) -> TokenAnswer:
        self.exchanges += 1
        await asyncio.sleep(0.02)
        if self.fault is not None:
            return TokenAnswer(status=503, body=b"<html>", fault=self.fault)
        if fields.get("refresh_token") != self.refresh:
            return TokenAnswer(status=400, body=b'{"error":"invalid_grant"}', fault=None)
        self.refresh, self.access = f"refresh-{self.exchanges}", f"access-{self.exchanges}"
        body = {"access_token": self.access, "refresh_token": self.refresh, "expires_in": 3600}
        return TokenAnswer(status=200, body=orjson.dumps(body), fault=None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.headers["authorization"])
        return httpx.Response(200 if request.headers["authorization"] == f"Bearer {self.access}" else 401)


class World:
    def __init__(self, database: Database, vendor: Vendor, clock: ManualClock) -> None:
        self.vendor, self.clock = vendor, clock
        self.grants = GrantStore(CredentialRows(database), Vault([b"k" * 32]))

    def client(self, vendor: Any = None, scheme: OAuth | Login = OAUTH) -> httpx.AsyncClient:
        """Return a client with a flow of its own, as each process has one."""
        auth = Renewing(
            scheme, workspace="default", source="a", base_url="https://vendor.example", store=self.grants,
            exchange=(vendor or self.vendor).exchange, expired=lambda response: response.status_code == 401, clock=self.clock,
        )  # fmt: skip
        return httpx.AsyncClient(base_url="https://vendor.example", auth=auth, transport=httpx.MockTransport(self.vendor.answer))


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    database = await Database.open(f"sqlite:///{tmp_path / 'c360.db'}")
    made = World(database, Vendor(), ManualClock())
    await made.grants.save("default", "a", Grant.of(FIRST), version=1)
    try:
        yield made
    finally:
        await database.close()


async def test_fifty_requests_share_one_renewal(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.client() as client:
        answers = await asyncio.gather(*(client.get("/x") for _ in range(50)))

    assert {each.status_code for each in answers} == {200}
    assert made.vendor.exchanges == 1


async def test_processes_that_renew_at_once_end_with_one_live_grant(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        clients = [made.client() for _ in range(4)]
        answers = await asyncio.gather(*(client.get("/x") for client in clients))
        kept = await made.grants.load("default", "a")

    assert {each.status_code for each in answers} == {200}
    assert kept is not None
    assert (kept[1].refresh_token, kept[1].access_token) == (made.vendor.refresh, made.vendor.access)


async def test_the_rotated_token_is_stored_before_the_new_one_is_used(tmp_path: Path) -> None:
    stored_when_used: list[str] = []
    async with world(tmp_path) as made:

        async def looking(request: httpx.Request) -> httpx.Response:
            kept = await made.grants.load("default", "a")
            assert kept is not None
            stored_when_used.append(kept[1].refresh_token)
            return made.vendor.answer(request)

        async with made.client() as client:
            client._transport = httpx.MockTransport(looking)
            await client.get("/x")

    assert stored_when_used == ["refresh-1"]


async def test_a_caller_who_gives_up_does_not_cut_the_renewal_off(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.client() as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await client.get("/x")
        answer = await client.get("/x")

    assert answer.status_code == 200
    assert made.vendor.exchanges == 1


async def test_a_token_is_renewed_a_minute_before_its_end(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.client() as client:
        await client.get("/x")
        made.clock.advance(3530)
        early = made.vendor.exchanges
        made.clock.advance(15)
        await client.get("/x")

    assert (early, made.vendor.exchanges) == (1, 2)


async def test_a_refused_token_is_renewed_once_and_the_request_repeated(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.client() as client:
        await client.get("/x")
        made.vendor.access = "revoked by the vendor"
        answer = await client.get("/x")

    assert answer.status_code == 200
    assert made.vendor.exchanges == 2


class Repeating:
    """Gives out the same token until it has ended, with the seconds left, as Marketo does."""

    def __init__(self, clock: ManualClock, *, left: float) -> None:
        self.clock, self.ends = clock, clock.now().timestamp() + left
        self.exchanges, self.tokens, self.calls = 0, 1, 0

    async def exchange(self, url: str, fields: Mapping[str, str], encoding: str) -> TokenAnswer:
        self.exchanges += 1
        left = self.ends - self.clock.now().timestamp()
        if left <= 0:
            self.tokens, self.ends, left = self.tokens + 1, self.ends + 3600, left + 3600
        body = {"access_token": f"access-{self.tokens}", "expires_in": int(left)}
        return TokenAnswer(status=200, body=orjson.dumps(body), fault=None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        alive = self.clock.now().timestamp() < self.ends
        return httpx.Response(200 if alive and request.headers["authorization"] == f"Bearer access-{self.tokens}" else 401)


async def test_a_token_that_is_given_out_till_its_end_is_asked_for_again_at_its_end_only(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        vendor = Repeating(made.clock, left=3600)
        async with made.client(vendor) as client:
            client._transport = httpx.MockTransport(vendor.answer)
            await client.get("/x")
            for _ in range(59):  # the last minute but one second
                made.clock.advance(1 if vendor.exchanges > 1 else 3541)
                await client.get("/x")
            early = vendor.exchanges
            made.clock.advance(1)
            await client.get("/x")

    assert (early, vendor.exchanges, vendor.tokens) == (2, 3, 2)


async def test_a_token_with_no_second_left_is_not_taken_for_one_that_lives_long(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        vendor = Repeating(made.clock, left=0.9)
        async with made.client(vendor) as client:
            client._transport = httpx.MockTransport(vendor.answer)
            await client.get("/x")
            made.clock.advance(1)
            await client.get("/x")

    assert (vendor.exchanges, vendor.tokens) == (2, 2)
    assert vendor.calls == 2, "neither went out with a token that had ended"


async def test_a_refused_token_that_is_given_out_once_more_is_waited_out(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        said = iter([("old", 3600), ("old", 0.05), ("new", 3600)])

        class Vendor:
            exchanges = 0

            async def exchange(self, url: str, fields: Mapping[str, str], encoding: str) -> TokenAnswer:
                Vendor.exchanges += 1
                token, left = next(said)
                body = orjson.dumps({"access_token": token, "expires_in": left})
                return TokenAnswer(status=200, body=body, fault=None)

        made.vendor.access = "new"
        async with made.client(Vendor()) as client:
            answer = await client.get("/x")

    assert answer.status_code == 200
    assert (made.vendor.seen, Vendor.exchanges) == (["Bearer old", "Bearer new"], 3)


async def test_a_restart_goes_on_with_the_rotated_token(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        async with made.client() as client:
            await client.get("/x")
        made.clock.advance(10_000)
        async with made.client() as restarted:
            answer = await restarted.get("/x")

    assert answer.status_code == 200
    assert made.vendor.exchanges == 2


async def test_a_revoked_grant_is_told_as_lost(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.client() as client:
        made.vendor.refresh = "somebody connected anew"

        with pytest.raises(GrantLostError, match="connect the source again"):
            await client.get("/x")


async def test_a_grant_that_is_renewed_too_often_is_not_a_lost_one(tmp_path: Path) -> None:
    class Hurried(Vendor):
        async def exchange(self, url: str, fields: Mapping[str, str], encoding: str) -> TokenAnswer:
            body = b'{"error":"invalid_grant","error_description":"login rate exceeded"}'
            return TokenAnswer(status=400, body=body, fault=ThrottledError("too many logins", retry_after=60.0))

    async with world(tmp_path) as made, made.client(Hurried()) as client:
        with pytest.raises(ThrottledError):
            await client.get("/x")


async def test_an_outage_of_the_token_endpoint_is_not_a_lost_grant(tmp_path: Path) -> None:
    async with world(tmp_path) as made, made.client() as client:
        made.vendor.fault = UnavailableError("not available")
        with pytest.raises(UnavailableError):
            await client.get("/x")

        made.vendor.fault = None
        answer = await client.get("/x")

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("scheme", "answer"),
    [
        (Login(token_path="/login", lifetime=3600), b'"{token}"'),
        (Login(token_path="/login", token="session"), b'{"session":"{token}","expires_in":3600}'),
    ],
)
async def test_a_login_exchanges_its_password_again_when_the_token_ends(tmp_path: Path, scheme: Login, answer: bytes) -> None:
    said: list[tuple[str, Mapping[str, str], str]] = []

    class Desk(Vendor):
        async def exchange(self, url: str, fields: Mapping[str, str], encoding: str) -> TokenAnswer:
            said.append((url, fields, encoding))
            self.access = f"access-{len(said)}"
            return TokenAnswer(status=200, body=answer.replace(b"{token}", self.access.encode()), fault=None)

    async with world(tmp_path) as made:
        made.vendor = Desk()
        await made.grants.save("default", "a", Grant.of({"scheme": "login", "username": "ada", "password": "p"}), version=2)
        async with made.client(scheme=scheme) as client:
            answers = [await client.get("/x"), await client.get("/x")]
            made.clock.advance(3600)
            answers.append(await client.get("/x"))

    assert {each.status_code for each in answers} == {200}
    assert said == [("https://vendor.example/login", {"username": "ada", "password": "p"}, "json")] * 2


async def test_a_refused_password_is_a_lost_grant(tmp_path: Path) -> None:
    class Desk(Vendor):
        async def exchange(self, url: str, fields: Mapping[str, str], encoding: str) -> TokenAnswer:
            return TokenAnswer(status=401, body=b'{"message":"incorrect"}', fault=None)

    async with world(tmp_path) as made, made.client(Desk(), Login(token_path="/login")) as client:
        with pytest.raises(GrantLostError, match="refused our credentials"):
            await client.get("/x")


@pytest.mark.parametrize(
    ("scheme", "secrets", "header", "value"),
    [
        (Token(), {"token": "t"}, "authorization", "Bearer t"),
        (Token(header="X-Shopify-Access-Token", prefix=""), {"token": "t"}, "x-shopify-access-token", "t"),
        (Basic(user_suffix="/token"), {"username": "ada", "password": "p"}, "authorization", "Basic YWRhL3Rva2VuOnA="),
    ],
)
async def test_fixed_secrets_go_where_the_vendor_looks(scheme: Any, secrets: dict[str, str], header: str, value: str) -> None:
    seen: list[httpx.Headers] = []
    transport = httpx.MockTransport(lambda request: (seen.append(request.headers), httpx.Response(200))[1])

    async with httpx.AsyncClient(auth=Fixed(scheme, Grant.of({"scheme": "x", **secrets})), transport=transport) as client:
        await client.get("https://vendor.example/x")

    assert seen[0][header] == value

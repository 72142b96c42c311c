"""Where a system gives tokens for a name and a password: the refresh token is used while it lives, the password after."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import orjson
import pytest

import credentials.flows
from adapters.base import OAuth
from adapters.registry import ADAPTERS
from credentials.flows import Renewing, TokenAnswer
from credentials.grants import Grant, GrantStore
from credentials.vault import Vault
from gateway.settings import SourceSettings
from gateway.sources import grant_of
from model.errors import ConfigurationError, GrantLostError
from store.credentials import CredentialRows
from store.database import Database
from tests.clocks import ManualClock

SCHEME = OAuth(
    token_path="/token", body="json", header="OAuth-Token", prefix="", first_grant="password", public_client="shared",
    fields={"platform": "{platform}"}, defaults={"platform": "usual"},
)  # fmt: skip
SECRETS = {"scheme": "password", "username": "ada", "password": "correct"}


class Vendor:
    """Gives tokens for the password, and a new pair for a refresh token, which dies by it."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.password, self.refresh, self.access = "correct", "", ""

    async def exchange(self, url: str, fields: Mapping[str, str], encoding: str) -> TokenAnswer:
        self.asked.append(dict(fields))
        if fields["grant_type"] == "password" and fields["password"] != self.password:
            return TokenAnswer(status=401, body=b'{"error":"need_login"}', fault=None)
        if fields["grant_type"] == "refresh_token" and fields["refresh_token"] != self.refresh:
            return TokenAnswer(status=400, body=b'{"error":"invalid_grant"}', fault=None)
        self.refresh, self.access = f"refresh-{len(self.asked)}", f"access-{len(self.asked)}"
        body = {"access_token": self.access, "refresh_token": self.refresh, "expires_in": 3600}
        return TokenAnswer(status=200, body=orjson.dumps(body), fault=None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if request.headers.get("oauth-token") == self.access else 401)


@asynccontextmanager
async def client(folder: Path, vendor: Vendor, clock: ManualClock, **options: str) -> AsyncIterator[httpx.AsyncClient]:
    database = await Database.open(f"sqlite:///{folder / 'c360.db'}")
    grants = GrantStore(CredentialRows(database), Vault([b"k" * 32]))
    await grants.save("default", "a", Grant.of(SECRETS), version=1)
    auth = Renewing(
        SCHEME.at("https://vendor.example", options), workspace="default", source="a", base_url="https://vendor.example", store=grants, exchange=vendor.exchange,
        expired=lambda response: response.status_code == 401, clock=clock,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(
            base_url="https://vendor.example", auth=auth, transport=httpx.MockTransport(vendor.answer)
        ) as made:
            yield made
    finally:
        await database.close()


async def test_the_first_token_comes_by_password_and_the_next_by_refresh(tmp_path: Path) -> None:
    vendor, clock = Vendor(), ManualClock()

    async with client(tmp_path, vendor, clock) as made:
        first = await made.get("/x")
        clock.advance(3600)
        second = await made.get("/x")

    assert (first.status_code, second.status_code) == (200, 200)
    assert vendor.asked == [
        {"grant_type": "password", "username": "ada", "password": "correct", "client_id": "shared", "client_secret": "", "platform": "usual"},
        {"grant_type": "refresh_token", "refresh_token": "refresh-1", "client_id": "shared", "client_secret": "", "platform": "usual"},
    ]  # fmt: skip


async def test_a_dead_refresh_token_begins_anew_by_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials.flows, "REREAD_PAUSE", 0.0)
    vendor, clock = Vendor(), ManualClock()

    async with client(tmp_path, vendor, clock) as made:
        await made.get("/x")
        vendor.refresh = vendor.access = "another session took the place"
        answer = await made.get("/x")

    assert answer.status_code == 200
    assert [each["grant_type"] for each in vendor.asked] == ["password", "refresh_token", "password"]


async def test_a_changed_password_is_a_lost_grant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials.flows, "REREAD_PAUSE", 0.0)
    vendor, clock = Vendor(), ManualClock()
    vendor.password = "changed"

    async with client(tmp_path, vendor, clock) as made:
        with pytest.raises(GrantLostError, match="refused our credentials"):
            await made.get("/x")

    assert len(vendor.asked) == 1


async def test_a_source_says_its_own_extra_fields(tmp_path: Path) -> None:
    vendor = Vendor()

    async with client(tmp_path, vendor, ManualClock(), platform="mine", unknown="left out") as made:
        await made.get("/x")

    assert vendor.asked[0]["platform"] == "mine"
    assert "unknown" not in vendor.asked[0]


@pytest.mark.parametrize(("missing", "said"), [("username", {"password": "p"}), ("password", {"username": "ada"})])
def test_what_a_password_grant_needs_is_asked_for(missing: str, said: dict[str, str]) -> None:
    settings = SourceSettings.model_validate({
        "id": "sugar", "system": "sugarcrm", "base_url": "https://crm.example", "auth": {"scheme": "password", **said},
    })  # fmt: skip

    with pytest.raises(ConfigurationError, match=f"auth.{missing} is missing"):
        grant_of(settings, ADAPTERS)

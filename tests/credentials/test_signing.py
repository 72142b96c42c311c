"""Signatures are those of RFC 5849, and no attempt repeats the nonce of another."""

import random
import re
from urllib.parse import unquote

import httpx
import pytest

from adapters.base import Adapter, Config
from adapters.registry import ADAPTERS
from adapters.wire import Request
from credentials.grants import Grant
from credentials.schemes import OAuth1
from credentials.signing import Signing, base_string, signature
from model.clock import SystemClock
from sources.breaker import Breaker
from sources.budget import LocalBudget
from sources.reading import Reading
from sources.transport import CALL, Call, Guard, Retry
from tests.clocks import ManualClock

SHA1 = OAuth1(method="HMAC-SHA1")


def test_the_base_string_is_that_of_the_rfc() -> None:
    # RFC 5849, section 3.4.1.1
    request = httpx.Request(
        "post", "http://EXAMPLE.COM:80/request?b5=%3D%253D&a3=a&c%40=&a2=r%20b", content=b"c2&a3=2+q",
        headers={"content-type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    said = {
        "oauth_consumer_key": "9djdj82h48djs9d2", "oauth_token": "kkk9d7dh3k39sjv7", "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": "137131201", "oauth_nonce": "7d8f3e4a",
    }  # fmt: skip

    assert base_string(request, said) == (
        "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3D2%2520q%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D%26c2%3D%26"
        "oauth_consumer_key%3D9djdj82h48djs9d2%26oauth_nonce%3D7d8f3e4a%26oauth_signature_method%3DHMAC-SHA1%26"
        "oauth_timestamp%3D137131201%26oauth_token%3Dkkk9d7dh3k39sjv7"
    )


@pytest.mark.parametrize(
    ("request_", "said", "token_secret", "expected"),
    [
        (
            httpx.Request("POST", "https://photos.example.net/initiate"),
            {"oauth_timestamp": "137131200", "oauth_nonce": "wIjqoS", "oauth_callback": "http://printer.example.com/ready"},
            "", "74KNZJeDHnMBp0EMJ9ZHt/XKycU=",
        ),
        (
            httpx.Request("GET", "http://photos.example.net/photos?file=vacation.jpg&size=original"),
            {"oauth_token": "nnch734d00sl2jdk", "oauth_timestamp": "137131202", "oauth_nonce": "chapoH"},
            "pfkkdhi9sl3r4s00", "MdpQcU8iPSUjWoN/UDMsK2sui9I=",
        ),
    ],
)  # fmt: skip
def test_signatures_are_those_of_the_rfc(request_: httpx.Request, said: dict[str, str], token_secret: str, expected: str) -> None:
    # RFC 5849, section 1.2
    said = {"oauth_consumer_key": "dpf43f3p2l4k3l03", "oauth_signature_method": "HMAC-SHA1", **said}

    assert signature(base_string(request_, said), SHA1, "kd94hf93k423kf44", token_secret) == expected


async def test_a_space_is_sent_in_the_one_spelling_that_every_server_signs_alike() -> None:
    sent: list[httpx.Request] = []
    transport = httpx.MockTransport(lambda request: (sent.append(request), httpx.Response(200))[1])

    async with httpx.AsyncClient(auth=signing(), transport=transport) as client:
        await client.get("https://shop.example/orders", params={"a[b]": "2026-07-01 00:00:00"})

    assert sent[0].url.query == b"a%5Bb%5D=2026-07-01%2000%3A00%3A00"
    assert header(sent[0])["oauth_signature_method"] == "HMAC-SHA256"


async def test_a_call_that_is_sent_again_is_signed_anew() -> None:
    sent: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(header(request))
        return httpx.Response(503 if len(sent) < 3 else 200, content=b"{}")

    clock = SystemClock()
    guard = Guard(httpx.MockTransport(answer), adapter=some_adapter(), budget=LocalBudget((), clock=clock), breaker=Breaker(clock), clock=clock)  # fmt: skip
    async with httpx.AsyncClient(auth=signing(), transport=Retry(guard, clock=clock, rng=random.Random(1))) as client:
        call = Call(Request(operation="x", path="/x"), Reading(deadline=clock.monotonic() + 30))
        await client.get("https://shop.example/x", extensions={CALL: call})

    assert len({each["oauth_nonce"] for each in sent}) == len({each["oauth_signature"] for each in sent}) == 3


def signing() -> Signing:
    grant = Grant.of({"scheme": "oauth1", "client_id": "key", "client_secret": "s", "token": "t", "token_secret": "ts"})
    return Signing(OAuth1(), grant, clock=ManualClock())


def some_adapter() -> Adapter:
    return ADAPTERS["hubspot"](Config(source="a", base_url="https://shop.example"))


def header(request: httpx.Request) -> dict[str, str]:
    found = re.findall(r'(oauth_\w+)="([^"]*)"', request.headers["authorization"])
    return {name: unquote(value) for name, value in found}

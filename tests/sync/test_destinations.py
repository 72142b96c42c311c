"""Where we may be told to send: what is refused, and that no second look-up opens a way around."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from model.errors import ConfigurationError, DestinationError, InvalidRequestError
from sandbox.certificate import self_signed
from sources.client import client, network
from sync.destinations import Destinations, Pinned
from tests.sync.hooks import Hooks
from tests.world import served

PUBLIC = "93.184.215.14"


class Names:
    """A name server of a test: each look-up takes the next answer, and the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers, self.asked = list(answers), 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


@contextlib.asynccontextmanager
async def sending(destinations: Destinations, **tls: ssl.SSLContext) -> AsyncIterator[httpx.AsyncClient]:
    transport = network()
    if tls:
        transport.ssl_context = tls["context"]  # type: ignore[attr-defined]
    async with client(Pinned(transport, destinations)) as http:
        yield http


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "100.100.100.200", "192.0.0.192", "198.18.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255",
        "168.63.129.16",
        "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[fec0::1]", "[2001:db8::1]", "[2001::1]", "[100::1]",
        "[::ffff:127.0.0.1]", "[::ffff:a00:1]", "[::ffff:169.254.169.254]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]",
        "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2002:a00:1::1]",
        "2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.01", "1.2.3.4.5", "0", "0x8.8.8.8", "8.8.8", "134744072",
    ],
)  # fmt: skip
async def test_an_address_that_is_not_public_or_in_disguise_is_refused(host: str) -> None:
    with pytest.raises((DestinationError, InvalidRequestError)):
        await Destinations(resolve=Names([PUBLIC])).check(f"https://{host}/hook")


@pytest.mark.parametrize(
    "answer",
    [["127.0.0.1"], ["10.0.0.1"], ["::1"], ["::ffff:192.168.0.1"], [PUBLIC, "192.168.0.1"], ["64:ff9b::a00:1"], ["fe80::1%1"]],
    ids=str,
)
async def test_a_name_that_leads_to_a_private_address_is_refused(answer: list[str]) -> None:
    with pytest.raises(DestinationError) as refused:
        await Destinations(resolve=Names(answer)).check("https://hooks.example/in")

    assert refused.value.code == "FORBIDDEN"
    assert "webhook_private_hosts" in refused.value.message


@pytest.mark.parametrize(
    "answer", [[PUBLIC], ["2606:2800:21f:cb07:6820:80da:af6b:8b2c"], ["64:ff9b::5db8:d70e"], ["::ffff:93.184.215.14"]], ids=str
)
async def test_a_name_that_leads_to_public_addresses_passes(answer: list[str]) -> None:
    await Destinations(resolve=Names(answer)).check("https://hooks.example:8443/in?x=1")


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/in", "ftp://hooks.example/in", "hooks.example/in", "/in", "", "https://", "https:///in", "file:///etc/passwd",
        "https://user:secret@hooks.example/in", "https://hooks.example/in#part", "https://hooks example/", "https://hooks.example:99999/",
        "https://a..b/", "https://-/", "https://hooks.example\\@127.0.0.1/", "https://[fe80::1%25eth0]/", "https://①②⑦.⓪.⓪.①/",
    ],
)  # fmt: skip
async def test_what_is_no_https_url_of_a_host_is_refused(url: str) -> None:
    with pytest.raises((InvalidRequestError, DestinationError)):
        await Destinations(resolve=Names([PUBLIC])).check(url)


async def test_a_name_without_an_address_is_told() -> None:
    async def nobody(host: str, port: int) -> list[str]:
        raise OSError("no such host")

    with pytest.raises(InvalidRequestError, match="cannot be found"):
        await Destinations(resolve=nobody).check("https://hooks.example/in")


@pytest.mark.parametrize(
    ("allowed", "url", "answer"),
    [
        (("hooks.internal",), "http://hooks.internal/in", "10.0.0.7"),
        (("Hooks.Internal",), "https://hooks.internal./in", "10.0.0.7"),
        (("10.0.0.0/8",), "http://anything.internal/in", "10.0.0.7"),
        (("127.0.0.1",), "http://127.0.0.1:9000/in", "127.0.0.1"),
        (("fd00::/8",), "https://[fd00::1]/in", ""),
    ],
)
async def test_the_operator_may_allow_hosts_and_networks(allowed: tuple[str, ...], url: str, answer: str) -> None:
    await Destinations(allowed, resolve=Names([answer])).check(url)


async def test_what_is_allowed_opens_nothing_else() -> None:
    with pytest.raises(DestinationError):
        await Destinations(("10.0.0.0/8", "hooks.internal"), resolve=Names(["192.168.0.1"])).check("https://other.internal/in")
    with pytest.raises(DestinationError):
        await Destinations(("10.0.0.0/8",), resolve=Names(["10.0.0.1", PUBLIC])).check("http://half.example/in")


@pytest.mark.parametrize("wrong", ["10.0.0.0/99", "a b", "", "300.1.1.1", "http://x.example"])
def test_a_mistake_in_the_setting_is_told_by_its_name(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="webhook_private_hosts"):
        Destinations((wrong,))


async def test_a_name_that_changes_its_mind_is_refused_at_the_connection(hook: Hooks) -> None:
    names = Names([PUBLIC], ["127.0.0.1"])
    destinations = Destinations(resolve=names)
    url = hook.url.replace("http://127.0.0.1", "https://rebind.example")
    await destinations.check(url)

    async with sending(destinations) as http:
        with pytest.raises(DestinationError):
            await http.post(url, content=b"{}")

    assert hook.got == []


async def test_the_connection_goes_to_the_address_that_was_checked_without_a_second_look(hook: Hooks) -> None:
    names = Names(["127.0.0.1"], ["192.0.2.1"])

    async with sending(Destinations(("twice.example",), resolve=names)) as http:
        answer = await http.post(hook.url.replace("127.0.0.1", "twice.example"), content=b"{}")

    assert (answer.status_code, names.asked) == (204, 1)
    assert hook.got[0].headers["host"].startswith("twice.example:")


async def test_the_next_address_is_tried_where_the_first_cannot_be_reached(hook: Hooks) -> None:
    names = Names(["127.0.0.2", "127.0.0.1"])  # nobody listens on the first

    async with sending(Destinations(("127.0.0.0/8",), resolve=names)) as http:
        answer = await http.post(hook.url.replace("127.0.0.1", "two.example"), content=b"{}")

    assert answer.status_code == 204
    assert [each.body for each in hook.got] == [b"{}"]


@pytest.mark.parametrize(("name", "trusted"), [("localhost", True), ("hooks.example", False)])
async def test_the_certificate_must_be_that_of_the_name_not_of_the_address(name: str, *, trusted: bool) -> None:
    async def said(_: object) -> PlainTextResponse:
        return PlainTextResponse("ok")

    config = uvicorn.Config(Starlette(routes=[Route("/", said, methods=["POST"])]), log_level="critical", lifespan="off")
    config.load()
    config.ssl = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with self_signed("192.0.2.9") as (certificate, key):
        config.ssl.load_cert_chain(certificate, key)
        context = ssl.create_default_context(cafile=str(certificate))
        with served(uvicorn.Server(config)) as address:
            url = address.replace("127.0.0.1", name)
            async with sending(Destinations((name,), resolve=Names(["127.0.0.1"])), context=context) as http:
                if trusted:
                    assert (await http.post(url, content=b"{}")).status_code == 200
                else:
                    with pytest.raises(httpx.TransportError):
                        await http.post(url, content=b"{}")

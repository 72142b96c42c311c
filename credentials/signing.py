"""Requests signed by RFC 5849 (OAuth 1.0) with HMAC: each carries a time, a nonce, and a digest under two secrets."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote

import httpx

from credentials.grants import Grant
from credentials.schemes import OAuth1
from model.clock import Clock

SIGN: Final = "c360.sign"  # the request extension that signs it anew: a nonce is good once, so no attempt may repeat it
_DIGESTS = {"HMAC-SHA256": hashlib.sha256, "HMAC-SHA1": hashlib.sha1}


class Signing(httpx.Auth):
    """Signs every request.

    Args:
        nonce: returns text that no other request of this client has.
    """

    requires_request_body = True

    def __init__(
        self, scheme: OAuth1, grant: Grant, *, clock: Clock, nonce: Callable[[], str] = lambda: secrets.token_hex(16)
    ) -> None:
        self._scheme, self._grant, self._clock, self._nonce = scheme, grant, clock, nonce

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.extensions = {**request.extensions, SIGN: self.sign}
        self.sign(request)
        yield request

    def sign(self, request: httpx.Request) -> None:
        """Put the Authorization header on a request, in place of the one that it has."""
        if b"+" in request.url.query:
            # A space, which some servers decode in the query and not when they check the signature.
            request.url = request.url.copy_with(query=request.url.query.replace(b"+", b"%20"))
        said = {
            "oauth_consumer_key": self._grant.client_id, "oauth_nonce": self._nonce(), "oauth_signature_method": self._scheme.method,
            "oauth_timestamp": str(int(self._clock.now().timestamp())), "oauth_token": self._grant.token, "oauth_version": "1.0",
        }  # fmt: skip
        text = base_string(request, said)
        said["oauth_signature"] = signature(text, self._scheme, self._grant.client_secret, self._grant.token_secret)
        request.headers["authorization"] = "OAuth " + ", ".join(f'{name}="{_encoded(value)}"' for name, value in said.items())


def base_string(request: httpx.Request, said: Mapping[str, str]) -> str:
    """Return what is signed (RFC 5849, section 3.4.1).

    Args:
        said: the parameters of the Authorization header, without its realm and signature.
    """
    pairs = [*parse_qsl(request.url.query.decode(), keep_blank_values=True), *said.items()]
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        pairs += parse_qsl(request.content.decode(), keep_blank_values=True)
    parameters = "&".join(f"{name}={value}" for name, value in sorted((_encoded(name), _encoded(value)) for name, value in pairs))
    path = request.url.raw_path.partition(b"?")[0].decode()
    address = f"{request.url.scheme}://{request.url.netloc.decode()}{path}"  # httpx keeps neither capitals nor a default port
    return "&".join(_encoded(part) for part in (request.method.upper(), address, parameters))


def signature(text: str, scheme: OAuth1, client_secret: str, token_secret: str) -> str:
    """Return the signature of a base string (section 3.4.2, with either digest), in base64."""
    key = f"{_encoded(client_secret)}&{_encoded(token_secret)}".encode()
    return base64.b64encode(hmac.new(key, text.encode(), _DIGESTS[scheme.method]).digest()).decode()


def _encoded(text: str) -> str:
    return quote(text, safe="~")

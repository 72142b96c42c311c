"""How Magento checks an OAuth 1 signature: HMAC-SHA256, each nonce once, a time that is not ten minutes ahead.

From "OAuth-based authentication" and the vendor's Framework/Oauth.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, unquote_plus

from starlette.requests import Request

_AHEAD = 600  # seconds
_NEEDED = ("oauth_consumer_key", "oauth_signature", "oauth_signature_method", "oauth_nonce", "oauth_timestamp", "oauth_token")


@dataclass(frozen=True, slots=True)
class Integration:
    """The four credentials of one integration."""

    key: str
    secret: str
    token: str
    token_secret: str


class Signatures:
    def __init__(self, integration: Integration) -> None:
        self._known = integration
        self._nonces: set[str] = set()

    def fault(self, request: Request, now: float) -> tuple[int, str, dict[str, str]] | None:
        """Return the status, the message and its parameters; None when the request is signed as it should be."""
        header = request.headers["authorization"].partition(" ")[2]
        said = {name: unquote(value) for name, value in re.findall(r'(oauth_[a-z_]+)="([^"]*)"', header)}
        for name in _NEEDED:
            if name not in said:
                return 400, '"%fieldName" is required. Enter and try again.', {"fieldName": name}
        if said["oauth_signature_method"] != "HMAC-SHA256":
            return 400, "Signature method %1 is not supported", {"1": said["oauth_signature_method"]}
        if said["oauth_consumer_key"] != self._known.key or said["oauth_token"] != self._known.token:
            return 401, "Consumer key has expired", {}
        if not said["oauth_timestamp"].isdigit() or not 0 < int(said["oauth_timestamp"]) <= now + _AHEAD:
            return 401, "The timestamp value in the oauth_timestamp parameter is invalid.", {}
        if said["oauth_nonce"] in self._nonces:
            return 401, "The nonce is already being used by the consumer with ID %1.", {"1": "1"}
        self._nonces.add(said["oauth_nonce"])
        if not hmac.compare_digest(said.pop("oauth_signature"), self._signature(request, said)):
            return 401, "The signature is invalid. Verify and try again.", {}
        return None

    def _signature(self, request: Request, said: dict[str, str]) -> str:
        parameters = dict(said)
        for pair in request.scope["query_string"].decode().split("&"):
            name, equals, value = pair.partition("=")
            if equals:
                parameters[unquote_plus(name)] = unquote_plus(value)
        joined = "&".join(
            f"{name}={value}" for name, value in sorted((_enc(name), _enc(each)) for name, each in parameters.items())
        )
        address = f"{request.url.scheme}://{request.headers['host']}{request.scope['path']}"
        text = "&".join(map(_enc, (request.method, address, joined)))
        key = f"{_enc(self._known.secret)}&{_enc(self._known.token_secret)}"
        return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


def _enc(text: str) -> str:
    return quote(text, safe="-._~")

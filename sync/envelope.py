"""An event as it is sent: a CloudEvents 1.0 body under the signature of Standard Webhooks 1.0.

https://github.com/cloudevents/spec (structured JSON) and https://github.com/standard-webhooks/standard-webhooks: both at once, so that
a receiver may use the libraries of either.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from model.events import Event
from model.records import Ref

MEDIA_TYPE: Final = "application/cloudevents+json"
_PREFIX = "whsec_"
_SECRET = 32  # bytes; the specification asks for 24 to 64


def word(event: Event) -> str:
    """Return what an event is called in filters: "contact.updated"."""
    return f"{event.ref.kind}.{event.op.lower()}"


def body_of(event: Event) -> str:
    """Return the body; it names records and fields, and holds no value of any."""
    ref, cursor = event.ref, str(event.seq)
    data: dict[str, Any] = {
        "id": event.id, "customer": event.customer, "object": ref.kind, "op": event.op, "changed": event.changed,
        "ref": {"source": ref.source, "system": event.system, "recordId": ref.native_id}, "at": _told(event.at), "origin": event.origin,
        "cursor": cursor,
    }  # fmt: skip
    if event.into is not None:
        data["into"] = {"source": ref.source, "system": event.system, "recordId": event.into}
    return orjson.dumps({
        "specversion": "1.0", "id": event.id, "source": f"/workspaces/{event.workspace}/sources/{ref.source}",
        "type": f"com.customer360.{word(event)}.v1", "subject": ref.id, "time": _told(event.at), "datacontenttype": "application/json",
        "data": data,
    }).decode()  # fmt: skip


def trace_of(ref: Ref) -> str:
    """Return the text that bodies about a record have, and no others."""
    return f'"subject":{orjson.dumps(ref.id).decode()}'


def headers(id: str, body: bytes, keys: Sequence[str], *, now: datetime) -> dict[str, str]:
    """Return the headers of one attempt.

    Args:
        id: of the event, the same however often it is sent.
        keys: the secrets to sign with; a receiver may know any of them.
    """
    stamp = str(int(now.timestamp()))
    signed = b".".join((id.encode(), stamp.encode(), body))
    return {
        "content-type": MEDIA_TYPE, "webhook-id": id, "webhook-timestamp": stamp,
        "webhook-signature": " ".join(_signature(key, signed) for key in keys),
    }  # fmt: skip


def new_secret() -> str:
    """Return a new secret as users are shown it, "whsec_" and base64."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET)).decode()


def fingerprint(secret: str) -> str:
    """Return what tells one secret from another and nothing else about it."""
    return hashlib.sha256(secret.encode()).hexdigest()[:12]


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def _told(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")

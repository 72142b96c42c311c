"""Cursors: opaque, signed, and good for one list of one workspace only."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Hashable
from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import Struct

from adapters.base import Position
from model.errors import InvalidRequestError

_MAC = 16  # bytes
_VERSION = b"1"
T = TypeVar("T")


class StreamMark(Struct, frozen=True, array_like=True):
    """How far one stream of rows was read.

    Attributes:
        page: the place the vendor page at hand started after, so that it can be taken from the page cache again.
        last: the last row that was taken.
        done: the stream has ended.
    """

    page: Position | None = None
    last: Position | None = None
    done: bool = False


class Mark(Struct, frozen=True, array_like=True):
    """Where a merged list stands.

    Attributes:
        as_of: rows created later belong to no page of this list.
        streams: by stream name.
        last: order key of the last row given out, to tell late rows.
        told: customers given out while a source failed whose return may split them, by id: digests of their records.
    """

    as_of: datetime
    streams: dict[str, StreamMark]
    last: tuple[datetime, int, int, str] | None = None
    told: dict[str, tuple[bytes, ...]] = {}


class Signer:
    """Makes and checks cursors under one secret."""

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.blake2b(secret, person=b"c360-cursor", digest_size=32).digest()

    def seal(self, mark: object, *, workspace: str, query: Hashable) -> str:
        """Return the cursor of a place in the list that (workspace, query) names."""
        body = msgspec.msgpack.encode(mark)
        return base64.urlsafe_b64encode(_VERSION + self._mac(body, workspace, query) + body).rstrip(b"=").decode()

    def open(self, cursor: str, shape: type[T], *, workspace: str, query: Hashable) -> T:
        """Return what `seal` was given.

        Raises:
            InvalidRequestError: it is not ours, was changed, or belongs to another list (other arguments, other workspace).
        """
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError) as error:
            raise _refused() from error
        mac, body = raw[1 : 1 + _MAC], raw[1 + _MAC :]
        if raw[:1] != _VERSION or not hmac.compare_digest(mac, self._mac(body, workspace, query)):
            raise _refused()
        return msgspec.msgpack.decode(body, type=shape)

    def _mac(self, body: bytes, workspace: str, query: Hashable) -> bytes:
        bound = msgspec.msgpack.encode([workspace, repr(query), body])
        return hmac.digest(self._key, bound, "sha256")[:_MAC]


def _refused() -> InvalidRequestError:
    return InvalidRequestError(
        "this cursor is not one of this list: pass `after` exactly as it was given, with the same arguments"
    )

"""Secrets at rest: AES-256-GCM, each envelope bound to the row it belongs to."""

import base64
import binascii
import hashlib
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from model.errors import ConfigurationError

_NONCE = 12
_KEY = 32
_FORMAT = b"\x01"


class Vault:
    """Seals and opens with a ring of keys: the first seals, all open, so that a key can be replaced in steps."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = [AESGCM(key) for key in keys]
        self._first = keys[0]

    @classmethod
    def from_text(cls, text: str) -> "Vault":
        """Return the vault of a key in base64 (32 bytes), or of several, separated by commas.

        Raises:
            ConfigurationError: a key is something else.
        """
        try:
            keys = [base64.b64decode(part.strip(), validate=True) for part in text.split(",")]
        except (binascii.Error, ValueError) as error:
            raise ConfigurationError("C360_KEY must be 32 bytes in base64") from error
        if any(len(key) != _KEY for key in keys):
            raise ConfigurationError("C360_KEY must be 32 bytes in base64")
        return cls(keys)

    @classmethod
    def from_file(cls, path: Path) -> "Vault":
        """Return the vault of a key file, made on first use and readable by its owner only.

        Raises:
            ConfigurationError: others may read it, or it holds no key.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as made:
                made.write(base64.b64encode(secrets.token_bytes(_KEY)).decode())
        except FileExistsError:
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise ConfigurationError(f"the key file {path} may be read by others: chmod 600 it") from None
        return cls.from_text(path.read_text())

    def seal(self, plain: bytes, *, bound_to: str) -> bytes:
        """Encrypt; the envelope opens only for the same `bound_to` (workspace, row, version)."""
        nonce = secrets.token_bytes(_NONCE)
        return _FORMAT + nonce + self._keys[0].encrypt(nonce, plain, bound_to.encode())

    def open(self, sealed: bytes, *, bound_to: str) -> bytes:
        """Decrypt.

        Raises:
            ConfigurationError: no key of the ring opens it: the key was lost or changed, or the row was tampered with.
        """
        if sealed[:1] == _FORMAT:
            nonce, body = sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
            for key in self._keys:
                try:
                    return key.decrypt(nonce, body, bound_to.encode())
                except InvalidTag:
                    continue
        raise ConfigurationError("stored credentials cannot be opened with this key (C360_KEY or the key file)")

    def derive(self, purpose: str) -> bytes:
        """Return a secret of its own for one purpose, such as signing cursors; the same on all replicas."""
        return hashlib.blake2b(purpose.encode(), key=self._first, digest_size=32).digest()

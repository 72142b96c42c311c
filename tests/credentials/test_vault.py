"""Secrets at rest open only with their key, in their own row."""

import base64
import stat
from pathlib import Path

import pytest

from credentials.grants import Grant
from credentials.vault import Vault
from model.errors import ConfigurationError

ONE, TWO = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


def test_what_is_sealed_opens_in_its_own_row_only() -> None:
    vault = Vault.from_text(ONE)
    sealed = vault.seal(b"secret", bound_to="default/hubspot/1")

    assert vault.open(sealed, bound_to="default/hubspot/1") == b"secret"
    assert b"secret" not in sealed
    for other in ("default/hubspot/2", "other/hubspot/1"):
        with pytest.raises(ConfigurationError):
            vault.open(sealed, bound_to=other)


def test_a_changed_envelope_does_not_open() -> None:
    vault = Vault.from_text(ONE)
    sealed = bytearray(vault.seal(b"secret", bound_to="row"))

    for at in range(len(sealed)):
        spoiled = bytes(sealed[:at]) + bytes([sealed[at] ^ 1]) + bytes(sealed[at + 1 :])
        with pytest.raises(ConfigurationError):
            vault.open(spoiled, bound_to="row")


def test_another_key_is_told_by_the_settings_name() -> None:
    sealed = Vault.from_text(ONE).seal(b"secret", bound_to="row")

    with pytest.raises(ConfigurationError, match="C360_KEY"):
        Vault.from_text(TWO).open(sealed, bound_to="row")


def test_a_key_is_replaced_in_steps() -> None:
    old = Vault.from_text(ONE).seal(b"secret", bound_to="row")
    ring = Vault.from_text(f"{TWO},{ONE}")

    new = ring.seal(ring.open(old, bound_to="row"), bound_to="row")

    assert Vault.from_text(TWO).open(new, bound_to="row") == b"secret"


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(b"x" * 16).decode(), f"{ONE},"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="32 bytes in base64"):
        Vault.from_text(text)


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "data" / "key"
    sealed = Vault.from_file(path).seal(b"secret", bound_to="row")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Vault.from_file(path).open(sealed, bound_to="row") == b"secret"


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    Vault.from_file(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)

    with pytest.raises(ConfigurationError, match="chmod 600"):
        Vault.from_file(tmp_path / "key")


def test_a_grant_never_shows_its_secrets() -> None:
    grant = Grant.of({"scheme": "oauth", "client_id": "app", "client_secret": "s3cret", "refresh_token": "r3fresh"})

    for text in (repr(grant), str(grant), f"{grant}", f"{[grant]}"):
        assert "s3cret" not in text
        assert "r3fresh" not in text


def test_a_grant_knows_whether_configuration_changed_since() -> None:
    said = {"scheme": "oauth", "client_id": "app", "client_secret": "s", "refresh_token": "first"}
    rotated = Grant.of(said).changed(refresh_token="second", access_token="a")

    assert rotated.same_secrets(said)
    assert not rotated.same_secrets({**said, "refresh_token": "connected anew"})

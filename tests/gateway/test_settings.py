"""A mistake in the settings stops the start with one line that names the key, and never shows a value."""

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import load
from model.errors import ConfigurationError

SOURCE = """
[[sources]]
id = "hubspot"
system = "hubspot"
base_url = "https://api.hubapi.com"
auth = { scheme = "token", token_env = "HUBSPOT_TOKEN" }
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c360.toml"
    path.write_text(text)
    return path


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(tmp_path: Path) -> None:
    path = written(tmp_path, 'port = 1\nhost = "127.0.0.2"\ndeadline = 7\n' + SOURCE)

    found = load(path, {"C360_PORT": "2", "C360_HOST": "127.0.0.3", "HUBSPOT_TOKEN": "t"}, port=3)

    assert (found.port, found.host, found.deadline) == (3, "127.0.0.3", 7.0)
    assert found.sources[0].auth.secrets() == {"scheme": "token", "token": "t"}


def test_lists_in_the_environment_are_separated_by_commas() -> None:
    assert load(None, {"C360_CORS_ORIGINS": "https://a.example, https://b.example"}).cors_origins == (
        "https://a.example",
        "https://b.example",
    )


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    path = written(tmp_path, SOURCE.replace('token_env = "HUBSPOT_TOKEN"', f'token_file = "{tmp_path / "token"}"'))

    assert load(path, {}).sources[0].auth.secrets()["token"] == "from a file"


def test_secrets_never_show_in_settings(tmp_path: Path) -> None:
    found = load(written(tmp_path, SOURCE), {"HUBSPOT_TOKEN": "t0psecret", "C360_DATABASE_URL": "postgresql://u:t0psecret@h/d"})

    assert "t0psecret" not in repr(found)


@pytest.mark.parametrize(
    ("text", "environment", "line"),
    [
        ("", {"C360_TYPO": "1"}, "C360_TYPO is no setting"),
        ("typo = 1", {}, "typo is no setting"),
        ("", {"C360_PORT": "http"}, "port:"),
        ("", {"C360_DEADLINE": "0"}, "deadline:"),
        ("", {"C360_LOG_LEVEL": "loud"}, "log_level:"),
        ("port =", {}, "is not valid TOML"),
        (SOURCE, {}, "sources.hubspot.auth.token_env: the variable HUBSPOT_TOKEN is not set"),
        (SOURCE.replace("https://api.hubapi.com", "api.hubapi.com"), {"HUBSPOT_TOKEN": "t0psecret"}, "sources.hubspot.base_url:"),
        (SOURCE.replace('id = "hubspot"', 'id = "Hub Spot"'), {"HUBSPOT_TOKEN": "t0psecret"}, "sources.Hub Spot.id:"),
        (SOURCE.replace('system = "hubspot"\n', ""), {"HUBSPOT_TOKEN": "t0psecret"}, "sources.hubspot.system is missing"),
        (SOURCE.replace("scheme", "shceme"), {"HUBSPOT_TOKEN": "t0psecret"}, "sources.hubspot.auth."),
        (SOURCE + SOURCE, {"HUBSPOT_TOKEN": "t0psecret"}, "the id 'hubspot' is used twice"),
        (SOURCE + 'colour = "red"\n', {"HUBSPOT_TOKEN": "t0psecret"}, "sources.hubspot.colour is no setting"),
        (SOURCE.replace("token_env", "token_file"), {}, "sources.hubspot.auth.token_file: the file cannot be read"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_key(tmp_path: Path, text: str, environment: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(written(tmp_path, text), environment)

    assert line in refused.value.message
    assert "\n" not in refused.value.message
    assert "t0psecret" not in refused.value.message


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    for named in (
        {"path": tmp_path / "none.toml", "environment": {}},
        {"path": None, "environment": {"C360_CONFIG": str(tmp_path / "none.toml")}},
    ):
        arguments: Any = named
        with pytest.raises(ConfigurationError, match="does not exist"):
            load(**arguments)

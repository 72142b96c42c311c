"""Where tokens are asked for, and with what, where that depends on the source."""

import pytest

from credentials.schemes import OAuth
from model.errors import ConfigurationError

ELSEWHERE = OAuth(
    token_path="{login}/{tenant}/token", fields={"scope": "{base_url}/all"}, defaults={"login": "https://login.example"}
)


def test_a_path_stays_what_it_is() -> None:
    assert OAuth(token_path="/oauth/token").at("https://shop.example", {}).token_path == "/oauth/token"


def test_a_template_is_filled_from_the_options_over_the_defaults() -> None:
    usual = ELSEWHERE.at("https://crm.example", {"tenant": "t1"})
    moved = ELSEWHERE.at("https://crm.example", {"tenant": "t1", "login": "https://login.gov.example"})

    assert (usual.token_path, usual.fields) == ("https://login.example/t1/token", {"scope": "https://crm.example/all"})
    assert moved.token_path == "https://login.gov.example/t1/token"


@pytest.mark.parametrize("options", [{}, {"tenant": ""}])
def test_an_option_that_is_missing_is_named(options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"tenant$"):
        ELSEWHERE.at("https://crm.example", options)

"""What docs/webhooks-out.md tells readers to paste is right."""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sync.endpoints import DeliveryPolicy, check_patterns
from sync.envelope import headers, new_secret
from tests.tools import needed

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks-out.md").read_text()
BODY = '{"name":"Ada – König"}'.encode()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def cases() -> list[tuple[bool, str, dict[str, str], bytes]]:
    """Return (is it right, secret, headers, body)."""
    now, secret, other = datetime.now(UTC), new_secret(), new_secret()
    said = headers("event:7", BODY, [secret], now=now)
    stale = headers("event:7", BODY, [secret], now=datetime.fromtimestamp(now.timestamp() - 600, tz=UTC))
    return [
        (True, secret, said, BODY), (True, other, headers("event:7", BODY, [secret, other], now=now), BODY), (False, other, said, BODY),
        (False, secret, said, BODY + b" "), (False, secret, {**said, "webhook-id": "event:8"}, BODY), (False, secret, stale, BODY),
        (False, secret, {**said, "webhook-signature": "v1,"}, BODY),
    ]  # fmt: skip


def test_the_check_in_python_takes_what_is_right_and_nothing_else() -> None:
    space: dict[str, object] = {}
    exec(block("python"), space)

    for right, *given in cases():
        assert space["verified"](*given) is right, given  # type: ignore[operator]


def test_the_check_in_javascript_takes_what_is_right_and_nothing_else(tmp_path: Path) -> None:
    node = needed("node")
    found = cases()
    given = json.dumps([[secret, said, body.decode()] for _, secret, said, body in found])
    (tmp_path / "page.mjs").write_text(
        f"{block('javascript')}\nconsole.log(JSON.stringify({given}.map((each) => verified(...each))));"
    )

    out = subprocess.run([node, tmp_path / "page.mjs"], capture_output=True, text=True, check=True, timeout=30).stdout

    assert json.loads(out) == [right for right, *_ in found]


def test_the_retry_policy_it_prints_is_the_default() -> None:
    assert json.loads(block("json")) == DeliveryPolicy().json_value()


@pytest.mark.parametrize("word", ["created", "updated", "deleted", "merged"])
def test_the_changes_it_lists_are_those_there_are(word: str) -> None:
    assert f"`{word}`" in PAGE
    assert check_patterns([f"*.{word}"])

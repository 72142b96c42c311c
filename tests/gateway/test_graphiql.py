"""The explorer in a real browser: it works without any other host, and under its own strict policy."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.happenings import event, happen, until_followed
from tests.tools import needed
from tests.world import World, world


@pytest.fixture(scope="module")
def running() -> Iterator[World]:
    with world(people=40) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = needed("chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A page, with what it asked for and what it complained of."""

    def __init__(self, page: Page, base: str) -> None:
        self.page, self.base = page, base
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc or request.url.partition(":")[0]))
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


@pytest.fixture
def visit(browser: Browser, running: World) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    yield Visit(page, str(running.http.base_url).rstrip("/"))
    page.close()


def test_a_browser_gets_the_explorer_and_runs_the_example_query(visit: Visit, running: World) -> None:
    visit.page.goto(f"{visit.base}/graphql")
    expect(visit.page.locator(".graphiql-query-editor")).to_contain_text("customer(by:")

    visit.page.locator(".graphiql-execute-button").click()

    expect(visit.page.locator(".result-window")).to_contain_text('"name": "Ada King"', timeout=20_000)
    expect(visit.page.locator(".result-window")).not_to_contain_text('"errors"')
    assert visit.hosts <= {urlsplit(visit.base).netloc, "data", "blob"}
    assert visit.complaints == []


def test_further_examples_stand_in_tabs(visit: Visit) -> None:
    visit.page.goto(f"{visit.base}/graphql")

    expect(visit.page.get_by_role("tab", name="Customers")).to_be_visible()


def test_the_example_subscription_shows_events_as_they_happen(visit: Visit, running: World) -> None:
    visit.page.goto(f"{visit.base}/graphql")
    visit.page.get_by_role("tab", name="Changes").click()
    expect(visit.page.locator(".graphiql-query-editor")).to_contain_text("subscription Changes")
    visit.page.locator(".graphiql-execute-button").click()
    until_followed(running)

    for native_id in ("4711", "4712"):
        happen(running, event(native_id, source="salesforce"))
        expect(visit.page.locator(".result-window")).to_contain_text(f'"recordId": "{native_id}"')

    visit.page.locator(".graphiql-execute-button").click()  # it stops now
    until_followed(running, 0)
    assert visit.hosts <= {urlsplit(visit.base).netloc, "data", "blob"}
    assert visit.complaints == []


def test_the_documentation_lists_the_graph(visit: Visit) -> None:
    visit.page.goto(f"{visit.base}/graphql")

    visit.page.get_by_role("button", name="Show Documentation Explorer").click()

    expect(visit.page.locator(".graphiql-doc-explorer")).to_contain_text("Query")
    assert visit.complaints == []


def test_the_root_leads_to_the_explorer(visit: Visit) -> None:
    visit.page.goto(visit.base)

    expect(visit.page).to_have_url(f"{visit.base}/graphql")


def test_a_program_gets_no_page(running: World) -> None:
    for accept in ("application/json", "*/*", "application/graphql-response+json, application/json;q=0.9"):
        answer = running.http.get("/graphql", params={"query": "{ __typename }"}, headers={"accept": accept})
        assert answer.json()["data"] == {"__typename": "Query"}


def test_the_explorer_can_be_switched_off() -> None:
    with world(people=2, graphiql=False) as running:
        assert running.http.get("/graphql", headers={"accept": "text/html"}).status_code == 406
        assert running.http.get("/graphql/assets/page.js").status_code == 404

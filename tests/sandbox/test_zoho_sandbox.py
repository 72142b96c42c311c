"""The sandbox answers as Zoho's documents say."""

from collections.abc import Iterator

import pytest

from sandbox.coql import REACH, ROWS
from sandbox.zoho import SEARCH_LAG
from tests.adapters.zoho_org import Org, served_org


@pytest.fixture
def org() -> Iterator[Org]:
    with served_org() as found:
        yield found


def test_lists_go_by_number_to_two_thousand_and_by_token_from_there() -> None:
    with served_org(people=5200) as org:
        with org.client() as http:
            said = {"fields": "Last_Name", "per_page": "200", "sort_by": "Created_Time", "sort_order": "asc"}
            last = http.get("/Contacts", params={**said, "page": "10"}).json()
            beyond = http.get("/Contacts", params={**said, "page": "11"})
            both = http.get("/Contacts", params={**said, "page": "2", "page_token": last["info"]["next_page_token"]})
            found = [
                each["id"]
                for page in range(1, 11)
                for each in http.get("/Contacts", params={**said, "page": str(page)}).json()["data"]
            ]
            token = last["info"]["next_page_token"]
            while token:
                page = http.get("/Contacts", params={**said, "page_token": token}).json()
                found += [each["id"] for each in page["data"]]
                token = page["info"]["next_page_token"]
            unnamed = http.get("/Contacts")
            org.sandbox.clock.advance(90_000)
        with org.client() as http:
            stale = http.get("/Contacts", params={**said, "page_token": last["info"]["next_page_token"]})

    assert (beyond.status_code, beyond.json()["code"]) == (400, "DISCRETE_PAGINATION_LIMIT_EXCEEDED")
    assert both.json()["code"] == "AMBIGUITY_DURING_PROCESSING"
    assert len(set(found)) == len(found) == org.dialect.live("contact") > 2000
    assert (unnamed.json()["code"], unnamed.json()["details"]) == ("REQUIRED_PARAM_MISSING", {"param_name": "fields"})
    assert stale.json()["code"] == "EXPIRED_VALUE"


def test_nothing_is_an_empty_204_and_the_search_index_lags_where_queries_do_not(org: Org) -> None:
    email = {"email": "late@brandnew.example"}
    query = {"select_query": "select id from Contacts where Email = 'late@brandnew.example'"}
    with org.client() as http:
        nothing = http.get("/Contacts/search", params=email)
        http.post("/Contacts", json={"data": [{"Last_Name": "Late", "Email": "late@brandnew.example"}]})
        queried, early = http.post("/coql", json=query), http.get("/Contacts/search", params=email)
        org.sandbox.clock.advance(SEARCH_LAG + 1)
        found = http.get("/Contacts/search", params=email)

    assert [(each.status_code, each.content) for each in (nothing, early)] == [(204, b"")] * 2
    assert len(queried.json()["data"]) == len(found.json()["data"]) == 1


def test_queries_keep_to_their_limits(org: Org) -> None:
    def code(query: str) -> str:
        answer = http.post("/coql", json={"select_query": query})
        return str(answer.json()["code"]) if answer.status_code == 400 else str(answer.status_code)

    with org.client() as http:
        found = [
            code(f"select id from Contacts where {text}")
            for text in (
                "id is not null", f"id is not null limit 0, {ROWS + 1}", f"id is not null limit {REACH}, 1", f"id in ({', '.join(['1'] * 101)})",
                "Last_Name = 'A' and First_Name = 'B' and Title = 'C'", "((Last_Name = 'A' and First_Name = 'B') and Title = 'C')", "Shoe_Size = 4",
                "Created_Time > 'yesterday'", "id is not null order by id, id",
            )
        ]  # fmt: skip
        without = code("select id from Contacts limit 10")

    assert found == ["200", *["LIMIT_EXCEEDED"] * 3, "SYNTAX_ERROR", "204", "INVALID_QUERY", "INVALID_QUERY", "DUPLICATE_DATA"]
    assert without == "SYNTAX_ERROR"


def test_credits_are_told_only_when_half_of_them_are_used(org: Org) -> None:
    with org.client() as http:
        early = http.get("/org")
        org.dialect._charge(29_001)
        late = http.get("/org")
        org.dialect._charge(29_000)
        refused = http.get("/org")

    assert "x-api-credits-remaining" not in early.headers
    assert 28_000 < int(late.headers["x-api-credits-remaining"]) < 29_000
    assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_REQUESTS")


def test_deleted_and_merged_records_are_in_the_list_of_the_deleted(org: Org) -> None:
    gone = {org.dialect.native("contact", each.id) for each in org.sandbox.world.profiles["zoho"] if each.deleted}
    with org.client() as http:
        found = http.get("/Contacts/deleted", params={"type": "all"}).json()["data"]
        since = http.get("/Contacts/deleted", params={"type": "all"}, headers={"if-modified-since": "2026-08-01T00:00:00+00:00"})

    assert {each["id"] for each in found} == gone
    assert since.status_code == 204

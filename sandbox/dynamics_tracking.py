"""Change tracking: a table's rows behind a delta link, and what changed since one.

After "Use change tracking to synchronize data with external systems": no `$filter`, `$orderby`, `$expand` or `$top`; a token is good for
seven days; what was deleted comes as `$deletedEntity`, also when it was made since. Decided here, since no document says: a token that is
too old is refused with the code of an expired version stamp; pages go by version, so that a row that changes meanwhile comes again, with
what is deleted on the last of them; a link stands for the moment at which its first page was asked for.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from urllib.parse import quote, urlencode

from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.dynamics_reading import Call, Reader, Refusal, applied
from sandbox.dynamics_store import Store
from sandbox.dynamics_tables import Schema
from sandbox.odata import MalformedQuery
from sandbox.table import Row

_LIFE = 7 * 86_400.0
_WORDS = {"$filter": "filter", "$orderby": "orderby", "$expand": "expand", "$top": "top"}
_TOKEN = re.compile(r"(\d+)!(\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)")
# since!token!page!version of the last row!its id
_COOKIE = re.compile(r'<cookie pagenumber="(\d+)" pagingcookie="(\d+)!(\d+)!(\d+)!([^"!]+)" istracking="True" />')


def tracked(call: Call) -> bool:
    return (
        call.prefers("odata.track-changes") is not None
        or "$deltatoken" in call.query
        or 'istracking="True"' in call.query.get("$skiptoken", "")
    )


class Tracker:
    def __init__(self, store: Store, reader: Reader) -> None:
        self._store, self._reader = store, reader

    def rows(self, call: Call, schema: Schema) -> Response:
        """Answer a query that tracks changes: all rows, or those since a token."""
        said = call.query
        if word := next((word for name, word in _WORDS.items() if name in said), None):
            raise Refusal(400, "0x80060888", f'The "{word}" query parameter isn\'t supported when Change Tracking is enabled.')
        try:
            select, _ = self._reader.view(schema, said)
        except MalformedQuery as error:
            raise Refusal(400, "0x80060888", str(error)) from error
        since, version, number, last = self._place(said)
        size, _ = self._reader.size(call)
        found = list(islice(self._since(schema, since, last), size + 1))
        page, more = found[:size], len(found) > size
        notes = call.prefers("odata.include-annotations")
        value = [self._reader.shown(schema, row, select, (), notes) for row in page]
        listed = f"({said['$select']})" if said.get("$select") else ""
        context = f"{call.root}/$metadata#{schema.set}"
        body: Row = {"@odata.context": f"{context}{listed}/$delta", "value": value}
        query = [(name, text) for name, text in said.items() if name not in {"$skiptoken", "$deltatoken"}]
        if more:
            cookie = f'<cookie pagenumber="{number + 1}" pagingcookie="{since}!{version}!{page[-1]["versionnumber"]}!{page[-1][schema.id]}" istracking="True" />'
            body["@odata.nextLink"] = self._link(call, schema, [*query, ("$skiptoken", cookie)])
        else:
            gone = self._store.gone.get(schema.logical, {}) if since else {}
            value += [
                {"@odata.context": f"{context}/$deletedEntity", "id": id, "reason": "deleted"}
                for id, at in sorted(gone.items(), key=lambda pair: pair[1])
                if at > since
            ]
            moment = datetime.fromtimestamp(self._store.now() / 1000, tz=UTC)
            body["@odata.deltaLink"] = self._link(
                call, schema, [*query, ("$deltatoken", f"{version}!{moment:%m/%d/%Y %H:%M:%S}")]
            )
        return json_response(body, headers=applied(call))

    def _place(self, said: Mapping[str, str]) -> tuple[int, int, int, tuple[int, str] | None]:
        """Return the version after which rows are wanted (0: all), that of the link to be given, the page, and its first row's place."""
        if (cookie := said.get("$skiptoken")) is not None:
            read = _COOKIE.fullmatch(cookie)
            if read is None:
                raise Refusal(400, "0x80060888", "Malformed XML in the paging cookie of $skiptoken.")
            return int(read[2]), int(read[3]), int(read[1]), (int(read[4]), read[5])
        if (token := said.get("$deltatoken")) is None:
            return 0, self._store.version, 1, None
        read = _TOKEN.fullmatch(token)
        if read is None:
            raise Refusal(400, "0x80060888", "The delta token is not valid.")
        given = datetime.strptime(read[2], "%m/%d/%Y %H:%M:%S").replace(tzinfo=UTC)
        if self._store.now() / 1000 - given.timestamp() > _LIFE:
            raise Refusal(400, "0x80044352", "Version stamp associated with the client has expired. Please perform a full sync.")
        return int(read[1]), self._store.version, 1, None

    def _since(self, schema: Schema, since: int, last: tuple[int, str] | None) -> Iterator[Row]:
        table, edge = self._store.tables[schema.logical], (last[0], len(last[1]), last[1]) if last else None
        for version, id in table.keys("versionnumber", start=last[0] if last else since + 1 if since else None):
            if (edge is None or (version, len(id), id) > edge) and (row := table.get(id)) is not None:
                yield row

    def _link(self, call: Call, schema: Schema, query: list[tuple[str, str]]) -> str:
        return f"{call.root}/{schema.set}?{urlencode(query, safe='$,', quote_via=quote)}"

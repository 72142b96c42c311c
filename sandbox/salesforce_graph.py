"""Composite graphs: several writes that refer to each other, all of a graph or nothing of it.

From the REST API guide: at most 75 graphs and 500 nodes in a request; after more than 14 failed graphs the rest is not begun.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox.dialect import json_response
from sandbox.salesforce_answers import VERSION, Refusal, error
from sandbox.salesforce_writing import Writing
from sandbox.table import Row

_GRAPHS, _NODES, _FAILURES = 75, 500, 14
_REFERENCE = re.compile(r"@\{(\w+)\.(\w+)\}")
_HALTED = Refusal(
    400, "PROCESSING_HALTED", "The transaction was rolled back since another operation in the same transaction failed."
)


class Graphs:
    def __init__(self, writing: Writing) -> None:
        self._writing = writing

    async def answer(self, request: Request) -> Response:
        try:
            graphs = orjson.loads(await request.body())["graphs"]
            nodes = sum(len(each["compositeRequest"]) for each in graphs)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return error(400, "JSON_PARSER_ERROR", "graphs is required")
        if len(graphs) > _GRAPHS or nodes > _NODES:
            return error(400, "LIMIT_EXCEEDED", f"at most {_GRAPHS} graphs of {_NODES} nodes in all")
        answers: list[Row] = []
        failures = 0
        for graph in graphs:
            results, good = (
                self._graph(graph["compositeRequest"])
                if failures <= _FAILURES
                else ([_shown(each, _HALTED) for each in graph["compositeRequest"]], False)
            )
            failures += not good
            answers.append({"graphId": graph["graphId"], "graphResponse": {"compositeResponse": results}, "isSuccessful": good})
        return json_response({"graphs": answers})

    def _graph(self, nodes: list[Row]) -> tuple[list[Row], bool]:
        made: dict[str, Row] = {}
        with self._writing.transaction() as undo:
            for node in nodes:
                try:
                    made[node["referenceId"]] = self._node(node, made)
                except Refusal as refusal:
                    undo()
                    return [_shown(each, refusal if each is node else _HALTED) for each in nodes], False
        return [
            {"body": made[each["referenceId"]], "httpHeaders": {}, "httpStatusCode": 201, "referenceId": each["referenceId"]}
            for each in nodes
        ], True

    def _node(self, node: Row, made: Mapping[str, Row]) -> Row:
        """Carry out one subrequest; only creates are known here."""
        asked = re.fullmatch(rf"/services/data/{re.escape(VERSION)}/sobjects/(\w+)/?", node.get("url", ""))
        if node.get("method") != "POST" or asked is None:
            raise Refusal(404, "NOT_FOUND", "The requested resource does not exist")
        body = {name: self._referred(value, made) for name, value in node["body"].items() if name != "attributes"}
        return {"id": self._writing.insert(asked[1], body, allow=False), "success": True, "errors": []}

    def _referred(self, value: Any, made: Mapping[str, Row]) -> Any:
        found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return value
        if found[1] not in made:
            raise Refusal(400, "PROCESSING_HALTED", f"Invalid reference specified. No value for {found[0]} found in {found[1]}.")
        return made[found[1]].get(found[2])


def _shown(node: Row, refusal: Refusal) -> Row:
    said = {"errorCode": refusal.code, "message": refusal.message, **({"fields": list(refusal.fields)} if refusal.fields else {})}
    return {"body": [said], "httpHeaders": {}, "httpStatusCode": refusal.status, "referenceId": node["referenceId"]}

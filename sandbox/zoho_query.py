"""How Zoho's sandbox chooses rows: COQL, and the criteria of the Search API, over the org's modules."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

from sandbox import soql
from sandbox.coql import Malformed, Query, typed
from sandbox.soql import Comparison, Logic
from sandbox.table import Row
from sandbox.zoho_modules import Module, Spec

_NUMBERS = frozenset({"integer", "double", "currency", "percent"})
_WALKED = frozenset({"id", "Created_Time", "Modified_Time"})
_OPERATORS = {
    "equals": "=", "not_equal": "!=", "greater_than": ">", "greater_equal": ">=", "less_than": "<", "less_equal": "<=", "starts_with": "like", "in": "in",
}  # fmt: skip
_CRITERION = re.compile(r"\((\w[\w.]*):(\w+):((?:\\.|[^()\\])*)\)")


class Reader:
    def __init__(self, modules: Mapping[str, Module]) -> None:
        self._modules = modules

    def query(self, query: Query) -> tuple[list[Row], bool]:
        """Return the rows of a COQL query, and whether there are more.

        Raises:
            Malformed: it names a module or a column that is not there.
        """
        module = self._modules.get(query.module)
        if module is None:
            raise Malformed("INVALID_QUERY", "the module name given seems to be invalid", module=query.module)
        for path in (
            *query.paths,
            *(path for path, _ in query.order),
            *(each.path for each in soql.comparisons(query.condition)),
        ):
            self._spec(module, path)
        condition = typed(query.condition, partial(self._literal, module))
        rows = (row for row in self._ordered(module, condition, query.order) if self.holds(module, condition, row))
        found = list(islice(rows, query.offset, query.offset + query.limit + 1))
        return [self._shown(module, row, query.paths) for row in found[: query.limit]], len(found) > query.limit

    def search(self, module: Module, criteria: str) -> list[Row]:
        """Return the live rows that meet the Search API's criteria, such as ((Email:in:a,b)and(Last_Name:equals:Doe))."""
        condition = typed(_criteria(criteria), partial(self._literal, module))
        return [row for row in self._candidates(module, condition) or module.table if self.holds(module, condition, row)]

    def holds(self, module: Module, condition: Comparison | Logic, row: Row) -> bool:
        return row["$deleted"] is None and soql.holds(condition, partial(self._value, module, row))

    def _ordered(self, module: Module, condition: Comparison | Logic, order: Sequence[tuple[str, bool]]) -> Iterable[Row]:
        order = order or (("id", False),)
        candidates = self._candidates(module, condition)
        if candidates is None and self._walks(order):
            path, descending = order[0]
            edge = soql.bound(condition, path, upper=descending)
            start = round(edge.timestamp() * 1000) if isinstance(edge, datetime) else edge
            return module.table.walk(path, start=start, descending=descending)
        rows = list(module.table if candidates is None else candidates)
        for path, descending in reversed(order):
            rows.sort(key=lambda row, path=path: self._sortable(module, row, path), reverse=descending)  # type: ignore[misc]
        return rows

    def _walks(self, order: Sequence[tuple[str, bool]]) -> bool:
        paths, ways = [path for path, _ in order], {descending for _, descending in order}
        return len(ways) == 1 and paths[0] in _WALKED and (len(paths) == 1 or paths[1:] == ["id"])

    def _candidates(self, module: Module, condition: Comparison | Logic) -> list[Row] | None:
        """Return rows among which every match is, found by an index; None where no index helps."""
        if isinstance(condition, Logic):
            if condition.word == "not":
                return None
            parts = [self._candidates(module, part) for part in condition.parts]
            if condition.word == "and":
                return min((each for each in parts if each is not None), key=len, default=None)
            if any(each is None for each in parts):
                return None
            return list({row["id"]: row for each in parts for row in each or ()}.values())
        path = condition.path.removesuffix(".id")
        if condition.operator not in {"=", "in"} or None in condition.values:
            return None
        if path == "id":
            return [row for id in condition.values if (row := module.table.get(str(id))) is not None]
        if path not in module.table.indexed:
            return None
        return module.table.having(path, [str(each).lower() for each in condition.values])

    def _spec(self, module: Module, path: str) -> Spec:
        name, _, rest = path.partition(".")
        spec = module.specs.get(name)
        if spec is not None and not rest:
            return spec
        if spec is not None and spec.type == "ownerlookup" and rest in {"id", "email", "full_name"}:
            return Spec("lookup" if rest == "id" else "text")
        if spec is not None and spec.lookup is not None:
            return spec if rest == "id" else self._spec(self._modules[spec.lookup], rest)
        raise Malformed("INVALID_QUERY", "column given seems to be invalid", column_name=path)

    def _literal(self, module: Module, path: str, value: Any) -> Any:
        spec = self._spec(module, path)
        try:
            if spec.type in {"bigint", "lookup", "ownerlookup"}:
                return int(value)
            if spec.type == "datetime":
                moment = datetime.fromisoformat(value)
                if moment.tzinfo is None:
                    raise ValueError("no offset")
                return moment.astimezone(UTC)
            if spec.type in _NUMBERS:
                return float(value)
            if spec.type == "boolean":
                return value if isinstance(value, bool) else value == "true"
        except (TypeError, ValueError):
            raise Malformed(
                "INVALID_QUERY", "value given seems to be invalid for the column", column_name=path, data_type=spec.type
            ) from None
        return str(value)

    def _value(self, module: Module, row: Row, path: str) -> Any:
        """Return what is compared: an int for an id, a time for a time."""
        name, _, rest = path.partition(".")
        spec, value = module.specs[name], row.get(name)
        if value is None:
            return None
        if spec.type in {"lookup", "ownerlookup"}:
            if rest in {"", "id"}:
                return int(value["id"])
            if spec.lookup is None:
                return value.get({"full_name": "name"}.get(rest, rest))
            above = self._modules[spec.lookup].table.get(value["id"])
            return self._value(self._modules[spec.lookup], above, rest) if above is not None else None
        if spec.type == "bigint":
            return int(value)
        return datetime.fromisoformat(value).astimezone(UTC) if spec.type == "datetime" else value

    def _sortable(self, module: Module, row: Row, path: str) -> tuple[bool, Any]:
        value = self._value(module, row, path)
        return (value is not None, value.lower() if isinstance(value, str) else 0 if value is None else value)

    def _shown(self, module: Module, row: Row, paths: Sequence[str]) -> Row:
        """Return what COQL shows: the id in any case; a lookup is an object, a field beyond one stands under its whole path."""
        shown: Row = {"id": row["id"]}
        for path in paths:
            name, _, rest = path.partition(".")
            value = row[name]
            if rest:
                shown[path] = value and (value["id"] if rest == "id" else self._value(module, row, path))
            elif module.specs[name].type == "ownerlookup":
                shown[path] = value and {"id": value["id"]}
            else:
                shown[path] = value
        return shown


def _criteria(text: str) -> Comparison | Logic:
    """Read `(a:equals:b)`, or `((…)and(…))` at any depth."""
    tests: list[Comparison] = []
    for name, said, value in _CRITERION.findall(text):
        if said not in _OPERATORS:
            raise Malformed("INVALID_QUERY", "Invalid query formed", operator=said, reason="invalid operator", api_name=name)
        values = value.split(",") if said == "in" else [f"{value}%" if said == "starts_with" else value]
        if len(values) > 100:
            raise Malformed("INVALID_QUERY", 'Only 100 values are allowed in "IN" criteria', api_name=name)
        tests.append(Comparison(name, _OPERATORS[said], tuple(re.sub(r"\\(.)", r"\1", each) for each in values)))
    if not tests or len(tests) > 15:
        code = "INVALID_QUERY" if not tests else "CRITERIA_LIMIT_EXCEEDED"
        raise Malformed(code, "no of criterium that can be given exceed the limit 15" if tests else "Invalid query formed")
    tokens = re.findall(r"and|or|[()]|\d+", _numbered(text))
    return _tree(iter(tokens), tests)


def _numbered(text: str) -> str:
    numbers = iter(range(10_000))
    return _CRITERION.sub(lambda _: str(next(numbers)), text)


def _tree(tokens: Iterator[str], tests: Sequence[Comparison]) -> Comparison | Logic:
    found: Comparison | Logic | None = None
    word = "and"
    for token in tokens:
        if token == ")":
            break
        if token in {"and", "or"}:
            word = token
            continue
        part = _tree(tokens, tests) if token == "(" else tests[int(token)]
        found = part if found is None else Logic(word, (found, part))
    if found is None:
        raise Malformed("INVALID_QUERY", "Invalid query formed")
    return found

"""What Shopify refuses a query for, in its words where they are known, and the versions that it answers in."""

import re
from collections.abc import Mapping
from typing import Any

from graphql import FieldNode, GraphQLError, OperationDefinitionNode, print_ast
from graphql.execution.values import get_variable_values

from sandbox.shopify_cost import SCHEMA
from sandbox.shopify_customers import GID
from sandbox.table import Row

_VERSIONS = ("2026-01", "2026-04", "2026-07", "2026-10")  # those a request is answered in; an older one falls forward
_VERSION = re.compile(r"\d{4}-(01|04|07|10)")


def answering(version: str) -> str | None:
    """Return the version that answers: a retired one falls forward to the oldest supported; None when there is none."""
    if version in {*_VERSIONS, "unstable"}:
        return version
    return _VERSIONS[0] if _VERSION.fullmatch(version) and version < _VERSIONS[0] else None


def places(error: GraphQLError) -> list[Row]:
    return [{"line": each.line, "column": each.column} for each in error.locations or ()]


def problem_of(error: GraphQLError) -> Row:
    """Put a validation error into Shopify's words where they are known."""
    node = error.nodes[0] if error.nodes else None
    if isinstance(node, FieldNode) and error.message.startswith("Cannot query field"):
        name, owner = node.name.value, error.message.split("'")[3]
        facts = {"code": "undefinedField", "typeName": owner, "fieldName": name}
        return {"message": f"Field '{name}' doesn't exist on type '{owner}'", "locations": places(error), "extensions": facts}
    return {"message": error.message, "locations": places(error)}


def wrong_variables(operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> list[Row]:
    wrong: list[Row] = []
    for each in operation.variable_definitions or ():
        name, type = each.variable.name.value, print_ast(each.type)
        value = variables.get(name)
        if isinstance(get_variable_values(SCHEMA, [each], dict(variables)), list):
            problems: list[Row] = [{"path": [], "explanation": f"Could not coerce value to {type}"}]
        elif type.strip("[]!") == "ID":
            ids = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
            problems = [
                {
                    "path": [] if at is None else [at],
                    "explanation": f"Invalid global id `{id}`",
                    "message": f"Invalid global id `{id}`",
                }
                for at, id in ids
                if id is not None and GID.fullmatch(str(id)) is None
            ]
        else:
            continue
        if problems:
            message = f"Variable ${name} of type {type} was provided invalid value"
            wrong.append({"message": message, "locations": [], "extensions": {"value": value, "problems": problems}})
    return wrong

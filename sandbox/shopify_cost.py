"""What a query costs Shopify in points: asked for by its selections, and in the end by the objects that really came."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInterfaceType,
    GraphQLObjectType,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    build_schema,
    get_named_type,
    is_abstract_type,
)
from graphql.execution.values import VariableValues, get_argument_values, get_variable_values

MAX_COST, _MUTATION = 1000, 10
SCHEMA = build_schema((Path(__file__).parent / "shopify.graphql").read_text())


def cost_of(document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> int:
    """Return the requested cost: an object 1, a connection its size times what a node costs, a mutation 10, scalars nothing.

    Of the types an interface may turn out to be, the dearest counts.
    """
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    coerced = get_variable_values(SCHEMA, operation.variable_definitions or (), dict(variables))
    assert isinstance(coerced, VariableValues)
    root = "Mutation" if operation.operation is OperationType.MUTATION else "QueryRoot"
    return _priced(operation.selection_set, root, fragments, coerced)


def _priced(
    selection: SelectionSetNode, parent: str, fragments: Mapping[str, FragmentDefinitionNode], variables: VariableValues
) -> int:
    own, by_type = 0, dict[str, int]()
    for node in selection.selections:
        if isinstance(node, FragmentSpreadNode | InlineFragmentNode):
            part = fragments[node.name.value] if isinstance(node, FragmentSpreadNode) else node
            type = part.type_condition.name.value if part.type_condition else parent
            by_type[type] = by_type.get(type, 0) + _priced(part.selection_set, type, fragments, variables)
        elif isinstance(node, FieldNode) and node.selection_set is not None and not node.name.value.startswith("__"):
            own += _field_price(node, node.selection_set, parent, fragments, variables)
    return own + (max(by_type.values(), default=0) if is_abstract_type(SCHEMA.type_map[parent]) else sum(by_type.values()))


def _field_price(
    node: FieldNode, selection: SelectionSetNode, parent: str, fragments: Mapping[str, FragmentDefinitionNode],
    variables: VariableValues,
) -> int:  # fmt: skip
    owner = SCHEMA.type_map[parent]
    assert isinstance(owner, GraphQLObjectType | GraphQLInterfaceType)
    definition = owner.fields[node.name.value]
    type = get_named_type(definition.type).name
    below = _priced(selection, type, fragments, variables)
    said = get_argument_values(definition, node, variables)
    if parent == "Mutation":  # what it answers with, an object and its errors, is in the price
        return _MUTATION + max(0, below - 2)
    if type.endswith("Connection"):
        return max(0, said.get("first") or 0) * max(below, 1)
    if node.name.value == "nodes" and parent == "QueryRoot":
        return len(said["ids"]) * (1 + below)
    return below if node.name.value in {"edges", "pageInfo"} else 1 + below


def counted(data: Any) -> int:
    """Return the actual cost: the objects that really came."""
    if isinstance(data, list):
        return sum(counted(each) for each in data)
    if not isinstance(data, dict):
        return 0
    own = 0 if data.keys() <= {"nodes", "edges", "pageInfo", "hasNextPage", "endCursor", "node", "cursor"} else 1
    return own + sum(counted(each) for each in data.values())

"""Which fields of which records a selection needs: what decides the projection sent to a system."""

from collections.abc import Iterator, Mapping
from typing import Any

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    SelectionSetNode,
    get_named_type,
)
from graphql.utilities import value_from_ast_untyped
from strawberry.types import Info
from strawberry.utils.str_converters import to_snake_case

from resolvers.context import Context, Fields

KINDS: Mapping[str, str] = {
    "Contact": "contact", "Lead": "lead", "Account": "account", "Deal": "deal", "Order": "order", "Ticket": "ticket", "Owner": "owner",
    "MarketingEvent": "marketing_event", "CustomRecord": "custom",
}  # fmt: skip
# GraphQL field → what the record must have for it, where that is not the field of the same name.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "account": ("account_id",), "owner": ("owner_id",), "parent": ("parent_id",), "name": ("name", "given_name", "family_name"),
    "customer": ("contact_id", "email", "emails", "phone", "phones", "family_name"), "items": ("items",), "kind": ("event",),
    "version": ("revision",),
}  # fmt: skip


def needed(info: Info[Context, Any]) -> Fields:
    """Return (kind, target field) for every record field selected anywhere below this field; computed once per field."""
    context = info.context
    nodes = info._raw_info.field_nodes  # noqa: SLF001 - Strawberry's own selection copies the whole tree per parent
    key = ("needed", id(nodes[0]))
    if key not in context.loaders:
        raw = info._raw_info  # noqa: SLF001
        found: set[tuple[str, str]] = set()
        parent = get_named_type(raw.return_type).name
        given: Any = raw.variable_values
        variables: Mapping[str, Any] = getattr(given, "coerced", given)  # Strawberry hands out a plain dict
        for node in nodes:
            if node.selection_set is not None:
                found.update(_walk(node.selection_set, parent, raw.schema, raw.fragments, variables))
        context.loaders[key] = frozenset(found)
    fields: Fields = context.loaders[key]
    return fields


def needed_below(info: Info[Context, Any], field: str) -> Fields | None:
    """Return what `needed` does when a field of a payload is selected, None when it is not."""
    raw = info._raw_info  # noqa: SLF001
    chosen = (node.selection_set for node in raw.field_nodes if node.selection_set is not None)
    return needed(info) if any(_selects(each, field, raw.fragments) for each in chosen) else None


def _selects(selection: SelectionSetNode, field: str, fragments: Mapping[str, FragmentDefinitionNode]) -> bool:
    for node in selection.selections:
        if isinstance(node, FieldNode):
            if node.name.value == field:
                return True
        elif isinstance(node, FragmentSpreadNode):
            if _selects(fragments[node.name.value].selection_set, field, fragments):
                return True
        elif isinstance(node, InlineFragmentNode) and _selects(node.selection_set, field, fragments):
            return True
    return False


def custom_keys(info: Info[Context, Any]) -> list[str] | None:
    """Return the keys of the fields that are selected of custom records below this field; None for all."""
    keys = [name.removeprefix("custom.") for kind, name in needed(info) if kind == "custom" and name.startswith("custom.")]
    return None if "*" in keys else sorted(keys)


def _walk(
    selection: SelectionSetNode,
    parent: str,
    schema: GraphQLSchema,
    fragments: Mapping[str, FragmentDefinitionNode],
    variables: Mapping[str, object],
) -> Iterator[tuple[str, str]]:
    for node in selection.selections:
        if isinstance(node, FragmentSpreadNode):
            fragment = fragments[node.name.value]
            yield from _walk(fragment.selection_set, fragment.type_condition.name.value, schema, fragments, variables)
        elif isinstance(node, InlineFragmentNode):
            condition = node.type_condition.name.value if node.type_condition else parent
            yield from _walk(node.selection_set, condition, schema, fragments, variables)
        elif isinstance(node, FieldNode):
            yield from _field(node, parent, schema, fragments, variables)


def _field(
    node: FieldNode,
    parent: str,
    schema: GraphQLSchema,
    fragments: Mapping[str, FragmentDefinitionNode],
    variables: Mapping[str, object],
) -> Iterator[tuple[str, str]]:
    name = node.name.value
    if name == "customFields" or (parent == "CustomRecord" and name == "fields"):
        keys = _keys(node, variables)
        for kind in (KINDS[parent],) if parent in KINDS else ("contact", "lead"):
            yield from ((kind, f"custom.{key}") for key in keys)
    elif parent in KINDS:
        yield from ((KINDS[parent], target) for target in _NEEDS.get(name, (to_snake_case(name),)))
    owner = schema.get_type(parent)
    if node.selection_set is not None and isinstance(owner, GraphQLObjectType | GraphQLInterfaceType):
        field = owner.fields.get(name)
        if field is not None:
            yield from _walk(node.selection_set, get_named_type(field.type).name, schema, fragments, variables)


def _keys(node: FieldNode, variables: Mapping[str, object]) -> list[str]:
    """Return the `keys` argument of a customFields selection, ["*"] for all."""
    given = next((each for each in node.arguments or () if each.name.value == "keys"), None)
    value = value_from_ast_untyped(given.value, dict(variables)) if given else None
    return [str(key) for key in value] if isinstance(value, list) else ["*"]

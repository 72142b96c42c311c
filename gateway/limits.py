"""What a document may ask for, decided before anything runs: tokens first, then operations, depth, aliases."""

from collections.abc import Mapping
from dataclasses import dataclass

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLSyntaxError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    parse,
)

from model.errors import InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    tokens: int = 4000
    operations: int = 5
    depth: int = 15
    aliases: int = 30
    root_fields: int = 20


def check(document: str, limits: Limits) -> DocumentNode | None:
    """Return the parsed document; None when it is no GraphQL (execution then says where).

    Raises:
        InvalidRequestError: it goes past a limit.
    """
    try:
        parsed = parse(document, max_tokens=limits.tokens, no_location=True)
    except GraphQLSyntaxError as error:
        if "token" in error.message and str(limits.tokens) in error.message:
            raise InvalidRequestError(f"the document has more than {limits.tokens} tokens") from None
        return None
    operations = [each for each in parsed.definitions if isinstance(each, OperationDefinitionNode)]
    if len(operations) > limits.operations:
        raise InvalidRequestError(f"the document has {len(operations)} operations; at most {limits.operations} are allowed")
    fragments = {each.name.value: each for each in parsed.definitions if isinstance(each, FragmentDefinitionNode)}
    measures = _Measures(fragments)
    for each in (*fragments.values(), *operations):  # fragments nobody spreads are validated too, so they are measured too
        size = measures.of(each.selection_set)
        if size.depth > limits.depth:
            raise InvalidRequestError(f"the query is more than {limits.depth} levels deep")
        if size.aliases > limits.aliases:
            raise InvalidRequestError(f"the query has more than {limits.aliases} aliases")
        if size.roots > limits.root_fields and isinstance(each, OperationDefinitionNode):
            raise InvalidRequestError(f"the operation has more than {limits.root_fields} root fields")
        if size.fields > 10 * limits.tokens:
            raise InvalidRequestError("the query spreads into too many fields")
    return parsed


@dataclass(frozen=True, slots=True)
class _Size:
    """What a selection comes to with all fragments spread in place."""

    depth: int = 0
    aliases: int = 0
    roots: int = 0
    fields: int = 0


class _Measures:
    """Sizes, worked out once per fragment: fragments that spread fragments double at every step."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._known: dict[str, _Size] = {}

    def of(self, selection: SelectionSetNode) -> _Size:
        depth = aliases = roots = fields = 0
        for node in selection.selections:
            size = self._node(node)
            depth = max(depth, size.depth)
            aliases, roots, fields = aliases + size.aliases, roots + size.roots, fields + size.fields
        return _Size(depth, aliases, roots, fields)

    def _node(self, node: SelectionNode) -> _Size:
        if isinstance(node, InlineFragmentNode):
            return self.of(node.selection_set)
        if isinstance(node, FragmentSpreadNode):
            return self._fragment(node.name.value)
        assert isinstance(node, FieldNode)
        below = self.of(node.selection_set) if node.selection_set is not None else _Size()
        return _Size(below.depth + 1, below.aliases + (node.alias is not None), 1, below.fields + 1)

    def _fragment(self, name: str) -> _Size:
        if name not in self._known:
            self._known[name] = _Size()  # cycles and unknown names are validation's to report
            if (fragment := self._fragments.get(name)) is not None:
                self._known[name] = self.of(fragment.selection_set)
        return self._known[name]

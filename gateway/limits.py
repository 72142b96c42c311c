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
    for operation in operations:
        measured = _Measure(fragments, limits)
        measured.walk(operation.selection_set, 1, frozenset())
        if measured.roots > limits.root_fields:
            raise InvalidRequestError(f"the operation has {measured.roots} root fields; at most {limits.root_fields} are allowed")
    return parsed


class _Measure:
    """Depth and aliases of one operation, fragments spread in place."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode], limits: Limits) -> None:
        self._fragments, self._limits = fragments, limits
        self.aliases = self.roots = self._fields = 0

    def walk(self, selection: SelectionSetNode, depth: int, within: frozenset[str]) -> None:
        if depth > self._limits.depth:
            raise InvalidRequestError(f"the query is more than {self._limits.depth} levels deep")
        for node in selection.selections:
            if isinstance(node, FieldNode):
                self._field(node, depth, within)
            elif isinstance(node, InlineFragmentNode):
                self.walk(node.selection_set, depth, within)
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                fragment = self._fragments.get(name)
                if fragment is not None and name not in within:  # cycles and unknown names are validation's to report
                    self.walk(fragment.selection_set, depth, within | {name})

    def _field(self, node: FieldNode, depth: int, within: frozenset[str]) -> None:
        self._fields += 1
        self.roots += depth == 1
        # Fragments that spread fragments multiply: the walk itself must end soon.
        if self._fields > 10 * self._limits.tokens:
            raise InvalidRequestError("the query spreads into too many fields")
        if node.alias is not None:
            self.aliases += 1
            if self.aliases > self._limits.aliases:
                raise InvalidRequestError(f"the query has more than {self._limits.aliases} aliases")
        if node.selection_set is not None:
            self.walk(node.selection_set, depth + 1, within)

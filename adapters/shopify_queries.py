"""What is asked of Shopify for native paths: selection sets, what they cost, and metafields under names of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

ITEMS = 10  # line items that come with each order; the few longer orders are asked for again
# A metafield is asked for under an alias that says which one it is, in hexadecimal: namespaces and keys may hold dashes.
_METAFIELD = "metafield_"


class Selection:
    """A selection set built from native paths, and what one record of it costs: each object 1, scalars nothing.

    Attributes:
        items: the selection inside line items, "" when none is wanted.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        tree: dict[str, Any] = {}
        for path in ["id", *paths]:
            at = tree
            for step in path.split("."):
                at = at.setdefault(step, {})
        lines = tree.get("lineItems", {}).get("nodes")
        self.items = _written(lines) if lines else ""
        self.item_cost = _priced(lines) if lines else 0
        self.cost = _priced({name: below for name, below in tree.items() if name != "lineItems"}) + ITEMS * self.item_cost
        self.text = _written({name: below for name, below in tree.items() if name != "lineItems"})
        if lines:
            self.text += f" lineItems(first: {ITEMS}) {{ nodes {{ {self.items} }} pageInfo {{ hasNextPage }} }}"


def metafield_alias(namespace: str, key: str) -> str:
    return f"{_METAFIELD}{f'{namespace}.{key}'.encode().hex()}"


def metafield_named(alias: str) -> tuple[str, str] | None:
    """Return the namespace and key that an alias stands for, None when it is none."""
    if not alias.startswith(_METAFIELD):
        return None
    namespace, _, key = bytes.fromhex(alias.removeprefix(_METAFIELD)).decode().rpartition(".")  # a key holds no dot
    return namespace, key


def _written(tree: Mapping[str, Any]) -> str:
    return " ".join(f"{_asked(name)} {{ {_written(below)} }}" if below else name for name, below in tree.items())


def _asked(name: str) -> str:
    named = metafield_named(name)
    return f'{name}: metafield(namespace: "{named[0]}", key: "{named[1]}")' if named else name


def _priced(tree: Mapping[str, Any]) -> int:
    return 1 + sum(_priced(below) for below in tree.values() if below)

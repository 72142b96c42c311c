"""Pages of lists, as the graph shows them: nodes, cursors, and what each source did."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from model.errors import InvalidRequestError
from resolvers.context import Context, Slice
from resolvers.fanout import Fanout, Status

MAX_FIRST = 100
N = TypeVar("N")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(Generic[N]):
    """One page.

    Attributes:
        cursor: the cursor after the n-th node, made on demand.
        end: the cursor to go on from; there is one even on an empty page while sources are still owed.
    """

    nodes: Sequence[N]
    cursor: Callable[[int], str]
    end: str | None
    more: bool
    statuses: Sequence[Status]


def check_first(first: int) -> None:
    """Raise InvalidRequestError unless a page of that size may be asked for."""
    if not 1 <= first <= MAX_FIRST:
        raise InvalidRequestError(f"`first` must be from 1 to {MAX_FIRST}, not {first}")


def cut(
    context: Context, query: Hashable, rows: Sequence[tuple[tuple[str, int, int, str], N]], arguments: Slice, fanout: Fanout
) -> Connection[N]:
    """Cut a page out of rows that were fetched whole for one parent.

    Args:
        query: names the list; its cursors are good for nothing else.
        rows: (sort key, node) in any order.
    """
    ordered = sorted(rows, key=lambda pair: pair[0], reverse=arguments.descending)
    if arguments.after is not None:
        kept = context.signer.open(arguments.after, tuple[str, int, int, str], workspace=context.workspace, query=query)
        ordered = [pair for pair in ordered if (pair[0] < kept if arguments.descending else pair[0] > kept)]
    page = ordered[: arguments.first]

    def cursor(at: int) -> str:
        return context.signer.seal(page[at][0], workspace=context.workspace, query=query)

    return Connection(
        nodes=[node for _, node in page],
        cursor=cursor,
        end=cursor(len(page) - 1) if page else None,
        more=len(ordered) > len(page),
        statuses=list(fanout.statuses.values()),
    )

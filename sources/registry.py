"""The sources of every workspace; they come and go while the process runs."""

from collections.abc import Sequence

from sources.source import Source


class Registry:
    """Open sources by workspace, by rank."""

    def __init__(self) -> None:
        self._sources: dict[str, dict[str, Source]] = {}

    def put(self, source: Source) -> None:
        """Add a source, or replace the one of that id."""
        self._sources.setdefault(source.workspace, {})[source.id] = source

    def remove(self, workspace: str, id: str) -> None:
        self._sources.get(workspace, {}).pop(id, None)

    def of(self, workspace: str) -> Sequence[Source]:
        return sorted(self._sources.get(workspace, {}).values(), key=lambda source: (source.rank, source.id))

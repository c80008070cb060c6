"""Standing results: what need not be looked at again when only some facts have changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modelbuild.actions.result import ActionResult, StandingResult
from modelbuild.driver.snapshot import Difference


class StandingResults(Mapping[int, StandingResult]):
    """Stored results of the actions that nothing has touched, decoded when asked for."""

    def __init__(self, rows: Sequence[Sequence[Any]], indices: set[int]) -> None:
        self._rows = rows
        self._indices = indices

    def __contains__(self, index: object) -> bool:
        return index in self._indices

    def __getitem__(self, index: int) -> StandingResult:
        if index not in self._indices:
            raise KeyError(index)
        key, result = self._rows[index]
        return StandingResult(key, ActionResult.from_json(result.encode()))

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        return len(self._indices)


def untouched(graph: Mapping[str, Any], difference: Difference) -> set[int]:
    """The actions of an encoded graph that rest on none of the differences."""
    touched = {f"s:{path}" for path in difference.sources}
    standing: set[int] = set()
    dependencies = graph["dependencies"]
    for index, row in enumerate(graph["actions"]):
        if index in difference.outputs or (touched and not touched.isdisjoint(row[2].values())):
            continue
        if all(dependency in standing for dependency in dependencies[index]):
            standing.add(index)
    return standing

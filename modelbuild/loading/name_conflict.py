"""Names of one package that cannot both be: of targets, outputs, exported files and groups."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from modelbuild.errors import LoadError, Location
from modelbuild.loading.package import Target


def name_conflicts(
    targets: Mapping[str, Target],
    generated: Mapping[str, str],
    exported: Collection[str],
    groups: Mapping[str, Location],
) -> Iterator[LoadError]:
    """Each conflict. generated: output -> the target that makes it. groups: name -> its place."""
    for name in exported:
        if name in targets:
            yield LoadError(
                f"`{name}` is a target and cannot be exported as a file", location=targets[name].location
            )
    for output, maker in generated.items():
        place = targets[maker].location
        for directory in _above(output):
            if directory in generated:
                yield LoadError(
                    f"output `{output}` of `:{maker}` lies below output `{directory}`", location=place
                )
        other = targets.get(output)
        if other is not None:
            yield LoadError(
                f"`{output}` is both a target and an output of `:{maker}`",
                location=place,
                notes=(f"target `{output}` is declared at {other.place}",),
            )
    for name, place in groups.items():
        if name in targets:
            yield LoadError(
                f"target name `{name}` is used twice",
                location=place,
                notes=(f"also at {targets[name].place}",),
            )


def _above(path: str) -> Iterator[str]:
    """The directories that a path lies in, the outermost first."""
    parts = path.split("/")
    for count in range(1, len(parts)):
        yield "/".join(parts[:count])

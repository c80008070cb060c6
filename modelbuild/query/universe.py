"""From a TargetGraph to a QueryGraph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from modelbuild.attribute import Dependency
from modelbuild.errors import LoadError
from modelbuild.label import Label
from modelbuild.loading.build_options import BuildOptions
from modelbuild.loading.dependencies import LoadingContext
from modelbuild.loading.load import asks_for_platform, load_graph
from modelbuild.loading.package import ConfigurationRoots, Package, Target, TargetGraph
from modelbuild.loading.patterns import TargetPattern, parse_pattern
from modelbuild.loading.select import variants
from modelbuild.loading.source_file import BUILD_FILE
from modelbuild.loading.workspace import Workspace
from modelbuild.query.build_files import build_files
from modelbuild.query.graph import Node, QueryGraph
from modelbuild.rule import COMMON_ATTRIBUTES


def load_universe(
    workspace: Workspace,
    patterns: Sequence[str],
    working_package: str = "",
    options: BuildOptions | None = None,
) -> QueryGraph:
    """Everything that `patterns` name (targets tagged `manual` too) and all it needs. Raises LoadError.

    options: when given, what asks for toolchains needs those that are registered, and the platforms; a query
    leaves out what no BUILD line says, as Bazel's does.
    """
    if not patterns:
        return QueryGraph((), lambda _: ())
    targets = load_graph(
        workspace,
        list(dict.fromkeys(patterns)),
        working_package=working_package,
        expand_suites=False,
        for_query=True,
        options=options,
    )
    return query_graph(targets, workspace, working_package)


def query_graph(
    targets: TargetGraph,
    workspace: Workspace,
    working_package: str = "",
    taken: Mapping[Label, Collection[Label]] | None = None,
) -> QueryGraph:
    """All that was loaded. taken: target -> what it needs with the branches it takes; else it takes all."""
    nodes = {node.label: node for node in _nodes(targets, taken or {})}

    def match(text: str) -> list[Label]:
        pattern = parse_pattern(text, working_package, workspace.is_package)
        if pattern.negative:
            raise LoadError(
                f"`{text}` cannot stand in a query", hint="take targets away with `except`: `//... - //x`"
            )
        return [label for label in _matching(pattern, targets.packages) if label in nodes]

    files = {package.name: build_files(workspace, package.name) for package in targets.packages.values()}
    return QueryGraph(nodes.values(), match, files)


def _nodes(targets: TargetGraph, taken: Mapping[Label, Collection[Label]]) -> Iterator[Node]:
    for package in targets.packages.values():
        yield Node(Label(package.repository, package.name, BUILD_FILE), "source file")
        for target in package.targets.values():
            needed = target.dependencies
            if target.conditional and target.label in taken:
                chosen = taken[target.label]
                needed = tuple(x for x in needed if x in chosen or x not in target.conditional)
            yield _rule_node(target, (*needed, *target.conditions, *_implicit(target, targets.roots)))
        for name, maker in package.generated.items():
            label = Label(package.repository, package.name, name)
            yield Node(
                label,
                "generated file",
                location=package.targets[maker].location,
                dependencies=(label.sibling(maker),),
            )
        for name in {*package.exported, *package.implicit}:
            if name not in package.targets and name not in package.generated:
                yield Node(Label(package.repository, package.name, name), "source file")
    for label in targets.sources:
        yield Node(label, "source file")


def _rule_node(target: Target, dependencies: Iterable[Label]) -> Node:
    attributes: dict[str, Any] = {"name": target.label.name}
    attributes |= _declared(target)
    outputs = {output.name: output for output in target.outputs}
    for name, value in attributes.items():
        if isinstance(value, list) and value and all(isinstance(x, str) and x in outputs for x in value):
            attributes[name] = [outputs[item] for item in value]
    attributes["visibility"] = [str(entry) for entry in target.visibility]
    attributes["generator_function"] = next((f.function for f in target.chain if f.function), "")
    own = {name: value for name, value in attributes.items() if name not in COMMON_ATTRIBUTES}
    common = {name: value for name, value in attributes.items() if name in COMMON_ATTRIBUTES}
    return Node(
        target.label,
        f"{target.rule} rule",
        {**common, **own},
        frozenset(target.attributes),
        target.location,
        is_test=target.is_test,
        dependencies=tuple(dict.fromkeys(dependencies)),
    )


def _implicit(target: Target, roots: ConfigurationRoots | None) -> tuple[Label, ...]:
    """What a target rests on without naming it: the platforms, and the toolchains it may be given."""
    if roots is None or not asks_for_platform(target):
        return ()
    toolchains = (*target.toolchain_types, *roots.toolchains) if target.toolchain_types else ()
    return (roots.platform, roots.default_platform, *toolchains)


def _declared(target: Target) -> dict[str, Any]:
    """The attributes of a target; what the branches of its selects give stands side by side."""
    instances = [target.instance] if target.instance is not None else []
    if not instances:
        context = LoadingContext(target.label.package, target.label.repository)
        instances = [
            target.rule_class.model_validate(values, context=context)
            for values in variants(target.attributes)
        ]
    declared: dict[str, Any] = {}
    for name in target.rule_class.model_fields:
        values = [_plain(getattr(instance, name)) for instance in instances]
        if all(value == values[0] for value in values):
            declared[name] = values[0]
            continue
        merged: list[Any] = []
        for value in values:
            items = value if isinstance(value, list) else [value]
            merged += [item for item in items if item not in merged]
        declared[name] = merged
    return declared


def _plain(value: Any) -> Any:
    """Attribute values with labels for dependencies."""
    if isinstance(value, Dependency):
        return value.label
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _matching(pattern: TargetPattern, packages: Mapping[str, Package]) -> Iterator[Label]:
    wanted = pattern.label
    if pattern.kind == "target":
        yield wanted
        return
    for package in packages.values():
        if package.repository != wanted.repository or not _holds(pattern)(package.name):
            continue
        if pattern.kind == "package" and wanted.name in package.targets:
            yield wanted
            continue
        names = [*package.targets]
        if pattern.files:
            names += [*package.generated, *package.exported, *package.implicit]
        yield from (Label(package.repository, package.name, name) for name in dict.fromkeys(names))


def _holds(pattern: TargetPattern) -> Callable[[str], bool]:
    at = pattern.label.package
    if pattern.kind == "package" or not at:
        return lambda name: pattern.kind == "below" or name == at
    return lambda name: name == at or name.startswith(f"{at}/")

"""An action graph as plain data, so that a snapshot can bring it back without evaluating a BUILD file.

Actions are decoded one by one when they are asked for: a build that touches one leaf of ten thousand
decodes one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

from modelbuild.actions.action import Action, Resources
from modelbuild.actions.graph import ActionGraph, RequestedTarget
from modelbuild.artifact import Artifact, ArtifactKind
from modelbuild.label import Label, parse_label
from modelbuild.runner import Runner
from modelbuild.tool import Lock, PythonTool, ShellTool, Tool, TreeTool, WriteTool

_KINDS: Mapping[str, ArtifactKind] = {"s": "source", "f": "file", "t": "tree"}
_PLAIN_TOOLS: Mapping[str, Tool] = {"shell": ShellTool(), "write": WriteTool(), "tree": TreeTool()}
_PLAIN_NAMES = {type(tool): name for name, tool in _PLAIN_TOOLS.items()}


def encode_graph(graph: ActionGraph) -> dict[str, Any]:
    """JSON data from which decode_graph makes an equal graph."""
    tools: dict[Tool, int] = {}
    rows = [_encode_action(action, tools) for action in graph.actions]
    return {
        "tools": [_encode_tool(tool) for tool in tools],
        "actions": rows,
        "dependencies": graph.dependencies,
        "requested": [
            [
                str(target.label),
                target.rule,
                [_encode_artifact(a) for a in target.files],
                [_encode_artifact(a) for a in target.validations],
                _encode_artifact(target.verdict) if target.verdict else None,
            ]
            for target in graph.requested
        ],
    }


def decode_graph(data: Mapping[str, Any]) -> ActionGraph:
    """The graph that encode_graph was given."""
    tools = [_decode_tool(tool) for tool in data["tools"]]
    actions = _Stored(data["actions"], lambda row: _decode_action(row, tools))
    producers = {path[2:]: i for i, row in enumerate(data["actions"]) for path in row[3].values()}
    return ActionGraph(
        actions, producers, [tuple(row) for row in data["dependencies"]], decode_requested(data["requested"])
    )


def decode_requested(rows: Sequence[Any]) -> Sequence[RequestedTarget]:
    """The requested targets of an encoded graph."""
    return _Stored(rows, _decode_requested)


T = TypeVar("T")


class _Stored(Sequence[T]):
    """The items of an encoded graph, decoded when first asked for."""

    def __init__(self, rows: Sequence[Any], decode: Callable[[Any], T]) -> None:
        self._rows = rows
        self._decode = decode
        self._decoded: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index not in self._decoded:
            self._decoded[index] = self._decode(self._rows[index])
        return self._decoded[index]


def _decode_requested(row: Sequence[Any]) -> RequestedTarget:
    label, rule, files, validations, verdict = row
    return RequestedTarget(
        parse_label(label),
        rule,
        tuple(_decode_artifact(a) for a in files),
        tuple(_decode_artifact(a) for a in validations),
        _decode_artifact(verdict) if verdict else None,
    )


def _encode_action(action: Action, tools: dict[Tool, int]) -> list[Any]:
    resources = action.resources
    return [
        tools.setdefault(action.tool, len(tools)),
        action.params,
        {name: _encode_artifact(a) for name, a in action.inputs.items()},
        {name: _encode_artifact(a) for name, a in action.outputs.items()},
        action.platform,
        action.threads,
        str(action.owner),
        action.mnemonic,
        action.progress,
        action.declared_at,
        [resources.cpu, resources.ram, resources.disk, resources.gpu, resources.gpu_ram],
        action.determinism,
        action.resumable,
        _encode_runner(action.runner) if action.runner else None,
        action.volatile,
    ]


def _decode_action(row: Sequence[Any], tools: Sequence[Tool]) -> Action:
    tool, params, inputs, outputs, platform, threads, owner, *rest = row
    mnemonic, progress, declared_at, resources, determinism, resumable, runner, volatile = rest
    return Action(
        tool=tools[tool],
        params=params,
        inputs={name: _decode_artifact(a) for name, a in inputs.items()},
        outputs={name: _decode_artifact(a) for name, a in outputs.items()},
        platform=tuple(platform),
        threads=threads,
        owner=_decode_label(owner),
        mnemonic=mnemonic,
        progress=progress,
        declared_at=declared_at,
        resources=Resources(*resources),
        determinism=determinism,
        resumable=resumable,
        runner=_decode_runner(runner) if runner else None,
        volatile=tuple(volatile),
    )


def _encode_runner(runner: Runner) -> list[str | None]:
    return [runner.kind, runner.cpu, str(runner.sysroot) if runner.sysroot else None, runner.address]


def _decode_runner(data: Sequence[Any]) -> Runner:
    kind, cpu, sysroot, address = data
    return Runner(kind, cpu, Path(sysroot) if sysroot else None, address)


def _decode_label(text: str) -> Label:
    repository, _, rest = text.removeprefix("@").partition("//") if text[0] == "@" else ("", "", text[2:])
    package, _, name = rest.partition(":")
    return Label(repository, package, name)


def _encode_artifact(artifact: Artifact) -> str:
    return f"{artifact.kind[0]}:{artifact.path}"


def _decode_artifact(text: str) -> Artifact:
    return Artifact(text[2:], _KINDS[text[0]])


def _encode_tool(tool: Tool) -> Any:
    if isinstance(tool, PythonTool):
        return [
            str(tool.source),
            tool.distributions,
            tool.preload,
            _encode_lock(tool.lock) if tool.lock else None,
            [[name, _encode_lock(lock)] for name, lock in tool.packages],
            tool.programs,
        ]
    return _PLAIN_NAMES[type(tool)]


def _encode_lock(lock: Lock) -> list[str]:
    return [str(lock.path), lock.platform, lock.python_version]


def _decode_tool(data: Any) -> Tool:
    if isinstance(data, str):
        return _PLAIN_TOOLS[data]
    source, distributions, preload, lock, packages, programs = data
    return PythonTool(
        Path(source),
        tuple(distributions),
        tuple(preload),
        _decode_lock(lock) if lock else None,
        tuple((name, _decode_lock(each)) for name, each in packages),
        tuple(programs),
    )


def _decode_lock(data: Sequence[str]) -> Lock:
    path, platform, python_version = data
    return Lock(Path(path), platform, python_version)

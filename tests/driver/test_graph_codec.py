"""Encoding an action graph and decoding it gives the same graph."""

import dataclasses
import json
from pathlib import Path

from modelbuild.actions.action import Action, Resources
from modelbuild.actions.graph import RequestedTarget, make_graph
from modelbuild.artifact import Artifact
from modelbuild.driver.graph_codec import decode_graph, encode_graph
from modelbuild.label import Label
from modelbuild.runner import Runner
from modelbuild.tool import Lock, PythonTool, ShellTool, TreeTool, WriteTool

OUT = [Artifact(f"pkg/o{i}", "tree" if i == 1 else "file") for i in range(4)]
ACTIONS = [
    Action(ShellTool(), {"command": "x"}, {"pkg/a": Artifact("pkg/a", "source")}, {"o": OUT[0]}),
    Action(
        PythonTool(
            Path("/t.py"),
            ("torch",),
            ("torch",),
            Lock(Path("/t.lock")),
            (("runtime", Lock(Path("/r.lock"), "aarch64-manylinux_2_28", "3.12")),),
            ("cat (apt: coreutils)",),
        ),
        {"n": [1, 2.5, None, {"a": True}]},
        {"in/o": OUT[0]},
        {"out/o": OUT[1]},
        platform=("//p:x",),
        threads=3,
        owner=Label("repo", "pkg", "name"),
        mnemonic="Train",
        progress="training",
        declared_at="pkg/BUILD.models:3",
        resources=Resources(2.0, 3, 4, 5, 6),
        determinism="numeric",
        resumable=True,
        runner=Runner("qemu-user", "aarch64", Path("/x.sysroot"), "pi@device:22"),
        volatile=("out/o",),
    ),
    Action(WriteTool(), {"content": "é", "executable": False}, {}, {"out": OUT[2]}, owner=Label("", "", "w")),
    Action(TreeTool(), {}, {"x": OUT[1], "y": OUT[2]}, {"out": OUT[3]}, owner=Label("", "p/q", "t")),
]
REQUESTED = (
    RequestedTarget(Label("", "p/q", "t"), "tree", (OUT[3],), (OUT[2],), OUT[0]),
    RequestedTarget(Label("", "pkg", "a"), "source file", (Artifact("pkg/a", "source"),)),
)


def test_round_trip_through_json() -> None:
    graph = make_graph(ACTIONS, REQUESTED)
    decoded = decode_graph(json.loads(json.dumps(encode_graph(graph))))
    assert list(decoded.actions) == list(graph.actions)
    assert decoded.producers == graph.producers
    assert tuple(decoded.dependencies) == tuple(graph.dependencies)
    assert tuple(decoded.requested) == graph.requested


def test_every_field_is_carried() -> None:
    default = Action(ShellTool(), {}, {}, {})
    full = ACTIONS[1]
    assert isinstance(full.tool, PythonTool)
    for field in dataclasses.fields(PythonTool):
        plain = getattr(PythonTool(Path("/other.py")), field.name)
        assert getattr(full.tool, field.name) != plain, f"the test says nothing of {field.name}"
    for field in dataclasses.fields(Action):
        assert getattr(full, field.name) != getattr(default, field.name), (
            f"the test says nothing of {field.name}"
        )


def test_what_is_not_needed_is_left_out() -> None:
    graph = make_graph(ACTIONS, (RequestedTarget(Label("", "", "w"), "write", (OUT[2],)),))
    assert [a.mnemonic for a in graph.actions] == [ACTIONS[2].mnemonic]
    assert graph.producers == {"pkg/o2": 0}

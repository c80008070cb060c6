"""explain: golden sentences for everything that can change."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelbuild.cache.explain import explain
from modelbuild.cache.trace import TraceRow
from modelbuild.digest import digest_bytes
from modelbuild.tree import Tree, TreeFile

_GOLDEN = Path(__file__).parent.parent / "golden" / "cache_explain.txt"


def _sha(text: str) -> str:
    return digest_bytes(text.encode()).sha256


_OLD_TREE = Tree(
    tuple(TreeFile(name, digest_bytes(name.encode())) for name in ("a", "b", "c", "train.jsonl"))
)
_NEW_TREE = Tree((*_OLD_TREE.files[:3], TreeFile("train.jsonl", digest_bytes(b"more"))))
_OTHER_TREE = Tree(tuple(TreeFile(name, digest_bytes(b"x")) for name in ("p", "q", "r", "s")))
_TREES = {tree.digest.sha256: tree for tree in (_OLD_TREE, _NEW_TREE, _OTHER_TREE)}

DETAIL: dict[str, Any] = {
    "params": {
        "steps": 300,
        "architecture": {"hidden_size": 256, "layers": 2},
        "command": "python3 tools/convert.py --input data/a.txt --output out/a.bin --verbose",
    },
    "tool": {
        "files": {"tool.py": _sha("tool"), "scoring.py": _sha("scoring")},
        "distributions": {"torch": "2.12.0", "safetensors": "0.6.2"},
        "python": "3.11",
    },
    "inputs": {
        "in/dataset": ["tree", _OLD_TREE.digest.sha256],
        "in/teacher": ["file", _sha("teacher")],
    },
    "outputs": {"out/model": "tree", "out/log": "file"},
    "threads": 2,
    "platform": ["//platforms:x86_64"],
}


def _components(detail: dict[str, Any], schema: str = "1") -> dict[str, str]:
    return {
        "schema": _sha(schema),
        "command": _sha(repr((detail["params"], detail["outputs"], detail["threads"]))),
        "tool": _sha(repr(detail["tool"])),
        "inputs": _sha(repr(detail["inputs"])),
        "platform": _sha(repr(detail["platform"])),
    }


def _previous(outcome: Any = "executed") -> TraceRow:
    return TraceRow("out", "//a:b", "Train", 0.0, _sha("key"), _components(DETAIL), DETAIL, outcome)


def _with(part: str, value: Any) -> dict[str, Any]:
    return {**DETAIL, part: value}


def _params(**changes: Any) -> dict[str, Any]:
    return _with("params", {**DETAIL["params"], **changes})


def _tool(**changes: Any) -> dict[str, Any]:
    return _with("tool", {**DETAIL["tool"], **changes})


def _inputs(**changes: Any) -> dict[str, Any]:
    return _with("inputs", {**DETAIL["inputs"], **{f"in/{name}": value for name, value in changes.items()}})


CASES: dict[str, dict[str, Any]] = {
    "one file of a tree": _inputs(dataset=("tree", _NEW_TREE.digest.sha256)),
    "a whole tree": _inputs(dataset=["tree", _OTHER_TREE.digest.sha256]),
    "a tree that is gone": _inputs(dataset=["tree", _sha("gone")]),
    "a file": _inputs(teacher=["file", _sha("another teacher")]),
    "an executable bit": _inputs(teacher=["file", _sha("teacher"), True]),
    "a new input": _inputs(tokenizer=["file", _sha("tokenizer")]),
    "a removed input": _with("inputs", {"in/dataset": DETAIL["inputs"]["in/dataset"]}),
    "a renamed input": _with("inputs", {**DETAIL["inputs"], "in/data": DETAIL["inputs"]["in/teacher"]}),
    "a parameter": _params(steps=400),
    "a nested parameter": _params(architecture={"hidden_size": 512, "layers": 2}),
    "a new parameter": _params(alpha=0.7),
    "a removed parameter": _with("params", {"steps": 300, "command": DETAIL["params"]["command"]}),
    "five parameters": _params(a=1, b=2, c=3, d=4, steps=1),
    "a long command": _params(command=DETAIL["params"]["command"].replace("--verbose", "--quiet")),
    "threads": _with("threads", 4),
    "a renamed output": _with("outputs", {"out/weights": "tree", "out/log": "file"}),
    "another kind of output": _with("outputs", {"out/model": "file", "out/log": "file"}),
    "a distribution": _tool(distributions={"torch": "2.13.0", "safetensors": "0.6.2"}),
    "a new distribution": _tool(distributions={**DETAIL["tool"]["distributions"], "numpy": "2.1"}),
    "a removed distribution": _tool(distributions={"torch": "2.12.0"}),
    "a tool file": _tool(files={"tool.py": _sha("edited"), "scoring.py": _sha("scoring")}),
    "a new tool file": _tool(files={**DETAIL["tool"]["files"], "loading.py": _sha("loading")}),
    "another python": _tool(python="3.12"),
    "another platform": _with("platform", ["//platforms:aarch64"]),
    "one more constraint": _with("platform", ["//platforms:x86_64", "//platforms:avx512"]),
    "two components": {**_inputs(teacher=["file", _sha("new")]), "params": {**DETAIL["params"], "steps": 1}},
}


def _sentences() -> str:
    lines = []
    for name, detail in CASES.items():
        lines.append(f"{name}\n    {explain(_previous(), _components(detail), detail, load_tree=_TREES.get)}")
    same = _components(DETAIL)
    others = {
        "first time": explain(None, same, DETAIL),
        "checked": explain(_previous(), same, DETAIL, checked=True),
        "output vanished": explain(_previous(), same, DETAIL, vanished=("out/model", "out/log")),
        "failed before": explain(_previous("failed"), same, DETAIL),
        "result is gone": explain(_previous(), same, DETAIL),
        "another schema": explain(_previous(), _components(DETAIL, "2"), DETAIL),
        "nothing is known of the parts": explain(
            replace(_previous(), detail={}), {**same, "tool": _sha("new")}, {"params": {}}
        ),
        "without a tree loader": explain(
            _previous(), _components(CASES["one file of a tree"]), CASES["one file of a tree"]
        ),
    }
    lines += [f"{name}\n    {reason}" for name, reason in others.items()]
    return "\n".join(lines) + "\n"


def test_sentences_are_the_golden_ones() -> None:
    if os.environ.get("MODELBUILD_UPDATE_GOLDEN") == "1":
        _GOLDEN.write_text(_sentences(), encoding="utf-8")
    assert _sentences() == _GOLDEN.read_text(encoding="utf-8")


def test_the_sentence_of_the_manual() -> None:
    detail = CASES["one file of a tree"]
    old, new = _OLD_TREE.digest.sha256, _NEW_TREE.digest.sha256
    assert str(explain(_previous(), _components(detail), detail, load_tree=_TREES.get)) == (
        f"inputs: dataset sha256:{old[:4]}.. -> {new[:4]}.. (1 of 4 files: train.jsonl); "
        "tool, command, platform unchanged"
    )


def test_digests_that_start_alike_are_told_apart() -> None:
    first, second = "abcd0" + "0" * 59, "abcd1" + "0" * 59
    previous = replace(_previous(), detail=_inputs(teacher=["file", first]))
    detail = _inputs(teacher=["file", second])
    reason = explain(previous, {**previous.components, "inputs": _sha("changed")}, detail)
    assert "sha256:abcd0.. -> abcd1.." in str(reason)


def test_what_json_changes_is_no_change() -> None:
    """A tuple comes back from the trace as a list."""
    previous = replace(_previous(), detail=_params(shape=[1, 2]))
    detail = _params(shape=(1, 2), steps=5)
    reason = explain(previous, {**previous.components, "command": _sha("changed")}, detail)
    assert [change.items for change in reason.changes] == [("steps 300 -> 5",)]

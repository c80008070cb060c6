"""The same BUILD files in a real Bazel: the same targets, the same files. Skipped where there is no Bazel."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.errors import LoadError
from modelbuild.loading.load import load_graph
from modelbuild.loading.workspace import open_workspace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bazel") is None, reason="no bazel on this machine"),
]

BUILD_FILES = {
    "": """
filegroup(name = "r", srcs = glob(["*.txt"]))
genrule(name = "g", srcs = ["top.txt"], outs = ["gen/o.txt"], cmd = "cp $< $@")
filegroup(name = "all_txt", srcs = glob(["**/*.txt"], exclude = ["d/e/**"]))
filegroup(name = "hidden", srcs = glob([".*", "**/.h*"], exclude = [".git*"]))
filegroup(name = "below", srcs = glob(["d/**"]))
filegroup(name = "directories", srcs = glob(["d/*"], exclude_directories = 0))
filegroup(name = "literal", srcs = glob(["d/c.txt", "nope", "d", "a/f.txt"]))
filegroup(name = "link", srcs = glob(["ln/**"]))
filegroup(name = "chosen", srcs = select({"//conditions:default": ["top.txt"]}) + [":g"])
""",
    "a": """
package(default_visibility = ["//b:__pkg__"])
load(":m.bzl", "family")
exports_files(["e.txt"])
filegroup(name = "a", srcs = ["f.txt"])
filegroup(name = "man", tags = ["manual"])
family("z")
alias(name = "al", actual = ":a", visibility = ["//visibility:public"])
""",
    "a/b/c": "filegroup(name = 'c')\nfilegroup(name = 'all')\nfilegroup(name = 'd/e')\n",
    "b": """
filegroup(name = "ok1", srcs = ["//a:a", "//a:e.txt", "//a:f.txt", "//a:al", "//a:z0.out"])
filegroup(name = "missing", srcs = ["//a:u2.txt"], tags = ["manual"])
filegroup(name = "self", srcs = [":self"], tags = ["manual"])
filegroup(name = "cy1", srcs = [":cy2"], tags = ["manual"])
filegroup(name = "cy2", srcs = [":cy1"], tags = ["manual"])
filegroup(name = "sub", srcs = ["//a:b/c/x"], tags = ["manual"])
""",
    "c": """
filegroup(name = "private", srcs = ["//a:a"], tags = ["manual"])
filegroup(name = "exported", srcs = ["//a:e.txt"])
filegroup(name = "file", srcs = ["//a:f.txt"], tags = ["manual"])
filegroup(name = "output", srcs = ["//a:z0.out"], tags = ["manual"])
filegroup(name = "al", srcs = ["//a:al"])
filegroup(name = "t", testonly = 1)
filegroup(name = "uses_t", srcs = [":t"], tags = ["manual"])
""",
}
MACRO = """
def family(name, **kwargs):
    for i in range(2):
        native.genrule(
            name = name + str(i),
            outs = [name + str(i) + ".out"],
            cmd = "echo %d > $@" % i,
            tags = ["manual"] if i else [],
            **kwargs
        )
    native.filegroup(name = name, srcs = native.glob(["*.txt"]) + [":" + name + "0"])
"""
FILES = ("top.txt", ".h.txt", "d/c.txt", "d/.hh", "d/e/f.txt", "d/e/g.py", "d/.x/y.txt", "a/e.txt", "a/f.txt")
PATTERNS = """//...
//:all
//a
//a:all
//a:*
//a/...
//a/...:*
//a/b/c:all
//a/b/...
//a/b:all
//b:ok1
//b:missing
//b:self
//b:cy1
//b:sub
//c:private
//c:exported
//c:file
//c:output
//c:al
//c:uses_t
//a:u.txt
//a:f.txt
//a:z0.out
//a:man
//nope
//nope/...
//d/...
a
a/f.txt
a/z0.out
d/c.txt
//:gen/o.txt
//a/b/c:d/e
...
//a/... -//a:a
-//a:a //a:a
//a/... //a:man -//a:all
//a/... -//a/b/... //a/b/c:c
//a:z0.out -//a:z0"""


class Bazel:
    """A Bazel server of this test's own."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root = root
        self._command = ["bazel", f"--output_user_root={state}"]
        self._events = state.with_suffix(".json")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            errors="replace",
        )

    def match(self, patterns: list[str]) -> set[str] | None:
        done = self.run("build", "--nobuild", f"--build_event_json_file={self._events}", "--", *patterns)
        if done.returncode:
            return None
        events = [json.loads(line)["id"] for line in self._events.read_text().splitlines()]
        return {event["targetConfigured"]["label"] for event in events if "targetConfigured" in event}


@pytest.fixture(scope="module")
def bazel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bazel]:
    root = tmp_path_factory.mktemp("parity").resolve()
    for name in ("WORKSPACE", "modelbuild.toml", *FILES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for package, text in BUILD_FILES.items():
        for name in ("BUILD", "BUILD.models"):
            path = root / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (root / "a" / "m.bzl").write_text(MACRO)
    (root / "ln").symlink_to("d")
    server = Bazel(root, tmp_path_factory.mktemp("state") / "bazel")
    yield server
    server.run("shutdown")


def test_patterns_match_the_same_targets(bazel: Bazel) -> None:
    workspace = open_workspace(str(bazel.root))
    different = []
    for line in PATTERNS.splitlines():
        patterns = line.split()
        try:
            found = {str(label) for label in load_graph(workspace, patterns).requested}
        except LoadError:
            ours = None
        else:
            ours = {label.replace("BUILD.models", "BUILD") for label in found}
        theirs = bazel.match(patterns)
        if ours != theirs:
            different.append((line, ours, theirs))
    assert different == []


def test_globs_find_the_same_files(bazel: Bazel) -> None:
    graph = load_graph(open_workspace(str(bazel.root)), ["//:all"])
    for target in graph.targets.values():
        if target.label.package or target.rule != "filegroup":
            continue
        found = bazel.run("query", "--noshow_progress", f"labels(srcs, {target.label})")
        assert found.returncode == 0, found.stderr
        theirs = {line for line in found.stdout.split() if line.startswith("//")}
        assert {str(label) for label in target.dependencies} == theirs, target.label

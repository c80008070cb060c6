"""The same BUILD files and queries, answered by Bazel and by modelbuild."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.cli.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bazel") is None, reason="Bazel is not installed"),
]

LIB = """
load(":m.bzl", "copy")
package(default_visibility = ["//visibility:public"])
exports_files(["data.txt"])
genrule(name = "gen", srcs = ["data.txt"], outs = ["gen.txt", "gen2.txt"], cmd = "cat $< | tee $(OUTS)")
filegroup(name = "files", srcs = glob(["*.txt"]) + [":gen"])
copy(name = "copied", src = ":gen.txt")
genrule(name = "man", outs = ["man.txt"], cmd = "echo x > $@", tags = ["manual", "slow"])
alias(name = "al", actual = ":gen")
"""
MACRO = """
def copy(name, src):
    native.genrule(name = name, srcs = [src], outs = [name + ".out"], cmd = "cp $< $@")
"""
APP = """
genrule(name = "app", srcs = ["//lib:files", "//lib:al", "c.txt"], outs = ["app.txt"], cmd = "cat $(SRCS) > $@")
genrule(name = "user", srcs = ["//lib:data.txt"], tools = [":app"], outs = ["t.txt"], cmd = "cp $< $@", executable = True)
"""
SUB = """
filegroup(name = "sub", srcs = [])
filegroup(name = "x-y", srcs = [":sub"])
"""
IMPLICIT = "@bazel_tools//"
"""What Bazel's genrule depends on without being told."""

QUERIES = r"""
//...
//lib:all
//lib:*
deps(//app:app)
deps(//app:app, 1)
deps(//app:user) - deps(//app:app)
rdeps(//..., //lib:gen)
rdeps(//..., //lib:gen, 1)
rdeps(//app/..., //lib:gen.txt)
allpaths(//app:app, //lib:data.txt)
kind("genrule", //...)
kind("source file", deps(//...))
kind("generated file", //lib:*)
kind(rule, //app:*)
attr(tags, slow, //...)
attr(tags, "\[manual", //...)
attr(executable, 1, //...)
attr(cmd, tee, //...)
attr(srcs, "data", //...)
filter("gen", //lib:*)
labels(srcs, //app:app)
labels(outs, //lib:gen)
labels(tools, //app:user)
siblings(//lib:gen)
buildfiles(//lib:gen)
let x = //lib:gen in deps($x) + $x
set(//lib:gen //app:app) ^ //lib/...
//app/sub
tests(//...)
same_pkg_direct_rdeps(//lib:gen)
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("agreement")
    for package, text in (("lib", LIB), ("app", APP), ("app/sub", SUB)):
        (root / package).mkdir()
        (root / package / "BUILD").write_text(text.lstrip())
        (root / package / "BUILD.models").write_text(text.lstrip())
    (root / "lib" / "m.bzl").write_text(MACRO)
    for name in ("WORKSPACE", "modelbuild.toml", "lib/data.txt", "lib/b.txt", "app/c.txt"):
        (root / name).touch()
    yield root
    bazel(root, "shutdown")


def bazel(root: Path, *words: str) -> str:
    command = ["bazel", f"--output_user_root={root.parent / 'bazel-output'}", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("query", QUERIES.strip().splitlines())
def test_same_answer(query: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = bazel(workspace, "query", query, "--noshow_progress").splitlines()
    expected = {
        label.replace(":BUILD", ":BUILD.models") for label in theirs if not label.startswith(IMPLICIT)
    }
    before = os.getcwd()
    os.chdir(workspace)
    try:
        assert main(["query", query]) == 0
    finally:
        os.chdir(before)
    assert set(capsys.readouterr().out.splitlines()) == expected

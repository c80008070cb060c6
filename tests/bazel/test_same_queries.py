"""`bazel query` and `modelbuild query` answer alike in a workspace with odd corners."""

from __future__ import annotations

import pytest

from modelbuild.cli.main import main
from tests.bazel.twins import Twins

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FILES = {
    "BUILD": """\
package(default_visibility = ["//visibility:public"])
filegroup(name = "root", srcs = glob(["*.txt", "**/data.txt", "linked/**"]))
exports_files(["top.txt", "absent.txt"])
test_suite(name = "suite")
test_suite(name = "suite_of_suite", tests = [":suite"])
""",
    "top.txt": "",
    "plain/data.txt": "",
    "plain/.hidden/data.txt": "",
    "real/file.txt": "",
    "a/BUILD": """\
package(default_visibility = ["//visibility:public"])
genrule(name = "g", srcs = ["in.txt", "//a/b:mid"], outs = ["g.txt", "sub/h.txt"], cmd = "cat $(SRCS) | tee $(OUTS)", tags = ["one", "two"])
genrule(name = "manual", outs = ["m.txt"], cmd = "echo > $@", tags = ["manual"], tools = [":g"])
filegroup(name = "a", srcs = ["g.txt", ":manual"], data = ["in.txt"], testonly = 1)
filegroup(name = "all_of_it", srcs = select({"//conditions:default": ["in.txt"]}), deprecation = "old")
filegroup(name = "broken", srcs = ["gone.txt", "//a/b:to_mid", "//:absent.txt"])
""",
    "a/in.txt": "",
    "a/b/BUILD": """\
filegroup(name = "mid", srcs = ["//a/b/c/d:leaf"], visibility = ["//a:__pkg__"])
alias(name = "to_mid", actual = ":mid")
filegroup(name = "all-targets", srcs = [":to_mid"])
""",
    "a/b/c/d/BUILD": 'filegroup(name = "leaf", srcs = glob(["**"], exclude = ["BUILD*"]), visibility = ["//a:__subpackages__"])\n',
    "a/b/c/d/x.txt": "",
    "a/b/c/d/e/y.txt": "",
    "odd-1.x_y+z/BUILD": 'filegroup(name = "odd")\n',
    "empty/BUILD": "",
}
QUERIES = """
//...
//...:all
//...:*
//...:all-targets
//:all
//:*
//a
//a:all
//a:*
//a/...
//a/...:*
//a/b:all-targets
//a/b/c/...
//empty/...
//odd-1.x_y+z
//odd-1.x_y+z/...
//a:g.txt
//a:sub/h.txt
//a:in.txt
//:top.txt
//... - //a/...
//a/... union //:all
//a/... intersect //a:all
//a/... except //a:manual
deps(//a)
deps(//a:g, 0)
deps(//a:g, 1)
deps(//a:g, 2)
deps(//a/b:to_mid)
rdeps(//..., //a/b/c/d:leaf)
rdeps(//..., //a/b/c/d:x.txt, 2)
rdeps(//a, //a/b:mid)
allpaths(//a, //a/b/c/d:leaf)
somepath(//a/b:all-targets, //a:g)
labels(srcs, //a:g)
labels(data, //a)
labels(tools, //a:manual)
labels(actual, //a/b:to_mid)
labels(srcs, //:root)
labels(srcs, //a/b/c/d:leaf)
labels(srcs, //a:all_of_it)
labels(nothing, //a:g)
kind(filegroup, //...)
kind("alias rule", //...)
kind("rule", //a:*)
kind("file", //a:*)
kind("^gen", //a:*)
kind(test_suite, //...)
filter("b", //...)
filter("^//a:", //...:*)
attr(tags, "one", //...)
attr(tags, "\\\\[one, two\\\\]", //...)
attr(testonly, 1, //...)
attr(testonly, 0, //a:all)
attr(deprecation, old, //...)
attr(name, "^g$", //...)
attr(visibility, public, //...)
tests(//:suite)
tests(//...)
siblings(//a:in.txt)
buildfiles(//a)
same_pkg_direct_rdeps(//a:in.txt)
let x = //a:g in deps($x) - $x
set(//a:g //a/b:mid)
//nope/...
//nope:x
//a:nope
//a:absent.txt
//:absent.txt
//plain/...
deps(//a:broken)
labels(srcs, //a:broken)
//a:gone.txt
deps(//a
kind(rule)
frobnicate(//a)
"""


def test_the_same_answers(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twins.put(FILES)
    for root in (twins.theirs, twins.ours):
        (root / "linked").symlink_to("real")
        (root / "plain" / "broken").symlink_to("nowhere")
    monkeypatch.chdir(twins.ours)
    different = []
    for query in QUERIES.strip().splitlines():
        done = twins.bazel("query", "--noshow_progress", "--noimplicit_deps", query)
        theirs = sorted(done.stdout.split()) if done.returncode == 0 else None
        code = main(["query", query])
        answer = capsys.readouterr().out.replace(":BUILD.models", ":BUILD").split()
        ours = sorted(answer) if code == 0 else None
        if ours != theirs:
            only_ours, only_theirs = set(ours or ()) - set(theirs or ()), set(theirs or ()) - set(ours or ())
            said = done.stderr.strip().splitlines()[-1:] if theirs is None else ""
            different.append(
                f"{query}: only ours {sorted(only_ours)}, only Bazel {sorted(only_theirs)} {code} {said}"
            )
    assert not different, "\n".join(different)

"""The same BUILD files in a real Bazel: the same targets build, with the same bytes, and the same ones do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bazel.twins import Twins, labels, unpack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))


@pytest.mark.parametrize("archive", CASES, ids=lambda path: path.stem)
def test_same_verdicts_and_bytes(archive: Path, twins: Twins) -> None:
    files = unpack(archive.read_text())
    twins.put(files)
    targets = labels(files)
    theirs = twins.build_theirs(targets)
    ours = twins.build_ours(targets)
    assert theirs.built
    different = [
        f"{label}: Bazel made {theirs.built.get(label)}, we made {ours.built.get(label)}"
        for label in targets
        if ours.built.get(label) != theirs.built.get(label)
    ]
    assert not different, "\n".join([*different, ours.said, theirs.said])


BROKEN = """\
-- board/BUILD --
package(default_visibility = ["//visibility:public"])
constraint_setting(name = "board")
constraint_value(name = "large", constraint_setting = ":board")
config_setting(name = "is_large", constraint_values = [":large"])
-- analysis/BUILD --
genrule(name = "two", outs = ["t.txt", "u.txt"], cmd = "echo > $@")
genrule(name = "after", srcs = [":u.txt"], outs = ["after.txt"], cmd = "echo > $@")
genrule(name = "last", srcs = [":after"], outs = ["last.txt"], cmd = "echo > $@")
genrule(name = "no_branch", srcs = select({"//board:is_large": []}), outs = ["no_branch.txt"], cmd = "echo > $@")
genrule(name = "after_branch", srcs = [":no_branch"], outs = ["after_branch.txt"], cmd = "echo > $@")
genrule(name = "elsewhere", outs = ["e.txt"], cmd = "echo > $@", target_compatible_with = ["//board:large"])
genrule(name = "after_elsewhere", srcs = [":elsewhere"], outs = ["ae.txt"], cmd = "echo > $@")
genrule(name = "location", outs = ["location.txt"], cmd = "echo $(location //good:g) > $@")
alias(name = "by_alias", actual = ":two")
filegroup(name = "group", srcs = [":by_alias"])
genrule(name = "good", srcs = ["//good:g"], outs = ["good.txt"], cmd = "echo > $@")
-- good/BUILD --
genrule(name = "g", outs = ["g.txt"], cmd = "echo > $@", visibility = ["//visibility:public"])
genrule(name = "hidden", outs = ["hidden.txt"], cmd = "echo > $@")
-- syntax/BUILD --
genrule(name =
-- attribute/BUILD --
genrule(name = "ok", outs = ["ok.txt"], cmd = "echo > $@", visibility = ["//visibility:public"])
genrule(name = "bad", outs = ["bad.txt"], cmd = "echo > $@", nope = 1)
-- loads/BUILD --
load(":x.bzl", "x")
genrule(name = "x", outs = ["x.txt"], cmd = "echo > $@")
-- loads/x.bzl --
x = 1 +
-- cycle/BUILD --
genrule(name = "a", srcs = [":b"], outs = ["a.txt"], cmd = "echo > $@")
genrule(name = "b", srcs = [":a"], outs = ["b.txt"], cmd = "echo > $@")
genrule(name = "after", srcs = [":a"], outs = ["after.txt"], cmd = "echo > $@")
genrule(name = "c", outs = ["c.txt"], cmd = "echo > $@")
-- needs/BUILD --
genrule(name = "good", srcs = ["//good:g"], outs = ["good.txt"], cmd = "echo > $@")
genrule(name = "hidden", srcs = ["//good:hidden"], outs = ["hidden.txt"], cmd = "echo > $@")
genrule(name = "syntax", srcs = ["//syntax:x"], outs = ["syntax.txt"], cmd = "echo > $@")
genrule(name = "attribute", srcs = ["//attribute:ok"], outs = ["attribute.txt"], cmd = "echo > $@")
genrule(name = "target", srcs = ["//good:none"], outs = ["target.txt"], cmd = "echo > $@")
genrule(name = "package", srcs = ["//none:x"], outs = ["package.txt"], cmd = "echo > $@")
genrule(name = "after", srcs = [":package"], outs = ["after.txt"], cmd = "echo > $@")
"""


@pytest.mark.parametrize(
    "patterns",
    [
        ["//..."],
        ["//needs:good", "//syntax:x", "//none:all", "//good:none"],
        ["//needs:good", "//analysis:two", "//analysis:last", "//analysis:elsewhere", "//analysis:location"],
    ],
)
def test_keep_going_goes_on_with_the_same_targets(patterns: list[str], twins: Twins) -> None:
    twins.put(unpack(BROKEN))
    theirs, ours = twins.build_theirs(patterns), twins.build_ours(patterns)
    # Bazel says nothing of settings and values that a wildcard names: there is nothing to make.
    assert {label for label in ours.built if not label.startswith("//board:")} == set(theirs.built)
    assert "//needs:good" in ours.built


def test_what_differs_on_purpose(twins: Twins) -> None:
    files = unpack((Path(__file__).parent / "on_purpose.txt").read_text())
    twins.put(files)
    targets = [label for label in labels(files) if not label.startswith("//data")]
    theirs = twins.build_theirs(targets)
    for label in targets:
        ours = label in twins.build_ours([label]).built
        assert ours == label.startswith("//accepted"), label
        assert (label in theirs.built) != ours, f"{label}: no difference any more"

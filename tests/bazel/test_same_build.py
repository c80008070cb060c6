"""The same BUILD files in a real Bazel: the same targets build, with the same bytes, and the same ones do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.analysis.analyze import analyze
from modelbuild.errors import ModelbuildError
from modelbuild.loading.load import load_graph
from modelbuild.loading.workspace import open_workspace
from tests.bazel.twins import Twins, labels, unpack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))


def refused(root: Path, label: str) -> bool:
    """Whether loading or analysis refuses to build `label`: a tenth of the time that a whole build takes."""
    try:
        analyze(load_graph(open_workspace(str(root)), [label]))
    except ModelbuildError:
        return True
    return False


@pytest.mark.parametrize("archive", CASES, ids=lambda path: path.stem)
def test_same_verdicts_and_bytes(archive: Path, twins: Twins) -> None:
    files = unpack(archive.read_text())
    twins.put(files)
    targets = labels(files)
    theirs = twins.build_theirs(targets)
    good = [label for label in targets if label in theirs.built]
    bad = [label for label in targets if label not in theirs.built]
    different: list[str] = []
    ours = twins.build_ours(good)
    built = dict(ours.built)
    for label in good:
        if label not in built:  # another one that cannot be loaded may have taken it along
            alone = twins.build_ours([label])
            built |= alone.built
            if label not in alone.built:
                different.append(f"{label}: Bazel builds it, and we say: {alone.said}")
    different += [
        f"{label}: Bazel made {theirs.built[label]}, we made {built[label]}"
        for label in good
        if label in built and built[label] != theirs.built[label]
    ]
    for label in bad:
        if not refused(twins.ours, label) and label in twins.build_ours([label]).built:
            file = f"{label.partition(':')[0][1:]}/BUILD"
            said = [line for line in theirs.said.splitlines() if file in line][:3]
            different.append(f"{label}: we build it, and Bazel says: {said}")
    assert not different, "\n".join(different)
    assert good


BROKEN = """\
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


@pytest.mark.parametrize("patterns", [["//..."], ["//needs:good", "//syntax:x", "//none:all", "//good:none"]])
def test_keep_going_goes_on_with_the_same_targets_after_errors_of_loading(
    patterns: list[str], twins: Twins
) -> None:
    twins.put(unpack(BROKEN))
    theirs, ours = twins.build_theirs(patterns), twins.build_ours(patterns)
    assert set(ours.built) == set(theirs.built)
    assert "//needs:good" in ours.built


def test_what_differs_on_purpose(twins: Twins) -> None:
    files = unpack((Path(__file__).parent / "on_purpose.txt").read_text())
    twins.put(files)
    targets = [label for label in labels(files) if not label.startswith("//data")]
    theirs = twins.build_theirs(targets)
    for label in targets:
        ours = not refused(twins.ours, label) and label in twins.build_ours([label]).built
        assert ours == label.startswith("//accepted"), label
        assert (label in theirs.built) != ours, f"{label}: no difference any more"

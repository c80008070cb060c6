"""After the same change to the same files, Bazel and modelbuild run the same commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bazel.twins import Twins

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FILES = {
    "BUILD": """\
load("//macros:family.bzl", "family")
genrule(name = "upper", srcs = ["in.txt"], outs = ["upper.txt"], cmd = "tr a-z A-Z < $< > $@")
genrule(name = "count", srcs = [":upper"], outs = ["count.txt"], cmd = "wc -c < $< > $@")
genrule(name = "report", srcs = [":count", "title.txt"], outs = ["report.txt"], cmd = "cat $(SRCS) > $@")
genrule(name = "apart", srcs = ["apart.txt"], outs = ["apart.out"], cmd = "cp $< $@")
genrule(name = "all", srcs = glob(["data/**"]), outs = ["all.txt"], cmd = "cat $(SRCS) /dev/null > $@")
genrule(name = "tooled", srcs = ["title.txt"], tools = [":tool"], outs = ["tooled.txt"], cmd = "$(location :tool) $< > $@")
genrule(name = "tool", srcs = ["//macros:tool.sh"], outs = ["tool"], cmd = "grep -v '^# ' $< > $@", executable = True)
filegroup(name = "group", srcs = ["title.txt", ":apart"])
alias(name = "other_name", actual = ":group")
genrule(name = "grouped", srcs = [":other_name"], outs = ["grouped.txt"], cmd = "cat $(SRCS) > $@")
genrule(name = "constant", outs = ["constant.txt"], cmd = "echo same > $@")
genrule(name = "after_constant", srcs = [":constant"], outs = ["after.txt"], cmd = "cp $< $@")
genrule(name = "unread", srcs = ["in.txt"], outs = ["unread.txt"], cmd = "echo ignores its source > $@")
genrule(name = "after_unread", srcs = [":unread"], outs = ["after_unread.txt"], cmd = "cp $< $@")
family(name = "f")
""",
    "macros/BUILD": 'exports_files(["tool.sh"])\n',
    "macros/family.bzl": """\
WORD = "word"
def family(name):
    for i in range(2):
        native.genrule(name = name + str(i), outs = [name + str(i) + ".txt"], cmd = "echo %s %d > $@" % (WORD, i))
""",
    "macros/tool.sh": "#!/bin/sh\n# A comment\nsed s/t/T/ $1\n",
    "in.txt": "hello\n",
    "title.txt": "title\n",
    "apart.txt": "apart\n",
    "data/a.txt": "a\n",
    "data/b.txt": "b\n",
    "unused.txt": "unused\n",
}

Edit = Callable[[Path], None]


def write(text: str) -> Edit:
    def edit(path: Path) -> None:
        path.write_text(text)

    return edit


def replace(old: str, new: str) -> Edit:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def touch(path: Path) -> None:
    os.utime(path, ns=(10**18, 10**18))


def link(path: Path) -> None:
    path.rename(path.with_name("real.txt"))
    path.symlink_to("real.txt")


def write_again(path: Path) -> None:
    text = path.read_text()
    path.unlink()
    path.write_text(text)


BACK = "a source, to what it was long ago"
BYTES = "one of many files"
BYTES_BACK = "one of many files, to what it was"
STEPS: list[tuple[str, str, Edit]] = [
    ("nothing", "in.txt", lambda _: None),
    ("a source", "in.txt", write("hello there\n")),
    ("a source, to other bytes of the same use", "in.txt", write("HELLO THERE\n")),
    ("a source, with a cutoff after the count", "in.txt", write("howdy there\n")),
    ("touch", "in.txt", touch),
    ("touch of a BUILD file", "BUILD", touch),
    ("a source written again", "title.txt", write_again),
    ("a source of several", "title.txt", write("another title\n")),
    ("a comment in the BUILD file", "BUILD", replace("alias(", "# A comment\nalias(")),
    ("blank lines in the BUILD file", "BUILD", replace("filegroup(", "\n\n\nfilegroup(")),
    ("a file that nothing uses", "unused.txt", write("still unused\n")),
    ("a file that a glob finds", "data/c.txt", write("c\n")),
    ("a file below, that a glob finds", "data/d/e.txt", write("e\n")),
    ("a file that a glob found is gone", "data/a.txt", Path.unlink),
    ("an empty directory below a glob", "data/empty", Path.mkdir),
    ("a comment in a tool", "macros/tool.sh", replace("# A comment", "# Another comment")),
    ("a tool", "macros/tool.sh", replace("s/t/T/", "s/t/X/")),
    ("a comment in a macro", "macros/family.bzl", replace("    for i", "    # A comment\n    for i")),
    ("a constant of a macro", "macros/family.bzl", replace('WORD = "word"', 'WORD = "words"')),
    ("one more of a macro's targets", "macros/family.bzl", replace("range(2)", "range(3)")),
    ("a command", "BUILD", replace("cp $< $@", "cat $< > $@")),
    ("a command that makes the same bytes", "BUILD", replace("echo same > $@", "printf 'same\\\\n' > $@")),
    ("another source", "BUILD", replace('srcs = ["apart.txt"]', 'srcs = ["unused.txt"]')),
    ("the order of sources", "BUILD", replace('[":count", "title.txt"]', '["title.txt", ":count"]')),
    (
        "tags and visibility",
        "BUILD",
        replace('name = "apart",', 'name = "apart", tags = ["x"], visibility = ["//visibility:public"],'),
    ),
    ("a message", "BUILD", replace('name = "constant",', 'name = "constant", message = "Doing it",')),
    ("a group's order", "BUILD", replace('["title.txt", ":apart"]', '[":apart", "title.txt"]')),
    ("an alias of something else", "BUILD", replace('actual = ":group"', 'actual = ":apart"')),
    (
        "one more target",
        "BUILD",
        replace("alias(", 'genrule(name = "new", outs = ["new.txt"], cmd = "echo new > $@")\nalias('),
    ),
    (
        "one target fewer",
        "BUILD",
        replace('genrule(name = "new", outs = ["new.txt"], cmd = "echo new > $@")\n', ""),
    ),
    ("an output of another name", "BUILD", replace('outs = ["apart.out"]', 'outs = ["apart.other"]')),
    (
        "a workspace file turned into a link to the same bytes",
        "title.txt",
        link,
    ),
    ("the file behind a link", "real.txt", write("a third title\n")),
    (BACK, "in.txt", write("hello there\n")),
    (BYTES, "data/b.txt", write("other\n")),
    (BYTES_BACK, "data/b.txt", write("b\n")),
]
"""What is changed, where, how. Each goes on from the one before."""

FEWER = {BACK: {"//:upper", "//:count", "//:unread"}, BYTES_BACK: {"//:all"}}
"""What Bazel runs again and modelbuild takes from its cache: docs/guides/bazel.md says why."""


def test_the_same_commands_run(twins: Twins) -> None:
    twins.put(FILES)
    theirs, ours = twins.build_theirs(["//..."]), twins.build_ours(["//..."])
    assert theirs.executed == ours.executed
    assert len(theirs.executed) == 14
    different, quiet = [], 0
    for what, path, edit in STEPS:
        for place in twins.paths(path):
            place.parent.mkdir(exist_ok=True)
            edit(place)
        theirs, ours = twins.build_theirs(["//..."]), twins.build_ours(["//..."])
        quiet += not theirs.executed
        if ours.executed != theirs.executed - FEWER.get(what, set()):
            different.append(f"{what}: Bazel {sorted(theirs.executed)}, ours {sorted(ours.executed)}")
        if ours.built != theirs.built:
            differing = [label for label in theirs.built if theirs.built[label] != ours.built.get(label)]
            different.append(f"{what}: other bytes in {differing} {ours.said}")
    assert not different, "\n".join(different)
    assert quiet < len(STEPS) / 2

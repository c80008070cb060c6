from __future__ import annotations

import pytest

from modelbuild.cli import build
from modelbuild.cli.command_line import CommandLine, add_general_flags
from modelbuild.errors import UsageError


def make_parser() -> CommandLine:
    parser = CommandLine("build", build.SUMMARY, build.USAGE)
    build.configure(parser)
    add_general_flags(parser)
    return parser


def test_flags_and_targets_mix() -> None:
    args = make_parser().read(["//a", "-k", "//b", "--jobs", "2", "-//c", "--", "//d", "-x"])
    assert args.targets == ["//a", "//b", "-//c"]
    assert args.rest == ["//d", "-x"]
    assert (args.jobs, args.keep_going) == (2, True)


@pytest.mark.parametrize("pattern", ["-//a/...", "-:x", "-@repo//a"])
def test_negative_pattern_is_no_flag(pattern: str) -> None:
    assert make_parser().read(["//...", pattern]).targets == ["//...", pattern]


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["--keep-goin"], "`modelbuild build` has no flag `--keep-goin`", "did you mean `--keep-going`?"),
        (["--evnts=x"], "`modelbuild build` has no flag `--evnts`", "did you mean `--events`?"),
        (["--zzz"], "`modelbuild build` has no flag `--zzz`", "`modelbuild help build` shows how it is used"),
        (["-j", "x"], "`-j/--jobs`: `x` is not a number", None),
        (["-j", "0"], "`-j/--jobs`: `0` is less than 1", None),
        (["--events"], "`--events`: needs a value", None),
        (["--events", ""], "`--events`: the value is empty", None),
        (["--keep-going=1"], "`-k/--keep-going`: takes no value", None),
        (["--color", "blue"], "`--color`: `blue` is none of `auto`, `always`, `never`", None),
        (["--keep"], "`modelbuild build` has no flag `--keep`", "did you mean `--keep-going`?"),
    ],
)
def test_errors(words: list[str], message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        make_parser().read(words)
    assert caught.value.message == message
    assert caught.value.hint == hint or hint is None

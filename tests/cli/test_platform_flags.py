"""The flags that choose platforms and toolchains, called as a person calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.cli.main import main
from tests.configuration.conftest import PLATFORMS, RULES, TOOLCHAINS

BUILD = """
load("//toolchains:rule.py", "compile", "compiler")

compile(name = "c")

[compiler(name = word, word = word) for word in ["one", "two"]]

[
    toolchain(name = name, toolchain = ":" + word, toolchain_type = "//toolchains:compiler")
    for name, word in [("b_one", "one"), ("a_two", "two")]
]

alias(name = "alias_of_one", actual = ":b_one")
alias(name = "round", actual = ":trip")
alias(name = "trip", actual = ":round")
filegroup(name = "files")
"""

Run = Callable[..., tuple[str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls modelbuild in a workspace with two platforms and two toolchains; stdout and stderr."""
    files = {
        "modelbuild.toml": '[build]\ntoolchains = ["//toolchains:all"]\n',
        "toolchains/rule.py": RULES,
        "toolchains/BUILD.models": TOOLCHAINS,
        "platforms/BUILD.models": PLATFORMS,
        "p/BUILD.models": BUILD,
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int = 0) -> tuple[str, str]:
        found = main(words)
        said = capsys.readouterr()
        assert found == code, said.err
        return said.out, said.err

    return call


def chosen(run: Run, *flags: str) -> str:
    """Whose word `//p:c` was made with."""
    (row,) = json.loads(run("aquery", "//p:c", "--json", *flags)[0])
    content = row["params"]["content"]
    assert isinstance(content, str)
    return content.partition(" ")[0]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ((), "any"),
        (("--extra-toolchains", "//p:b_one"), "one"),
        # As in Bazel: the last flag first, and within a wildcard the order of labels.
        (("--extra-toolchains", "//p:b_one", "--extra-toolchains", "//p:a_two"), "two"),
        (("--extra-toolchains", "//p:a_two,//p:b_one"), "one"),
        (("--extra-toolchains", "//p:all"), "two"),
        (("--extra-toolchains", "//p/..."), "two"),
        (("--extra-toolchains", "//p:alias_of_one"), "one"),
        (("--extra-toolchains", "//p:b_one", "--platform", "//platforms:drone"), "one"),
        (("--platform", "//platforms:drone"), "arm"),
    ],
)
def test_extra_toolchains_go_before_those_of_the_workspace(
    run: Run, flags: tuple[str, ...], word: str
) -> None:
    assert chosen(run, *flags) == word


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("//p:files", "`//p:files` is a filegroup and no toolchain"),
        ("//p:one", "`//p:one` is a compiler and no toolchain"),
        ("//p:round", "`//p:round` is a alias and no toolchain"),
        ("//p:a_thre", "there is no target `//p:a_thre`"),
        ("//q:all", "there is no package `//q`"),
    ],
)
def test_what_is_no_toolchain_is_never_passed_over(run: Run, pattern: str, message: str) -> None:
    error = run("build", "//p:c", "--extra-toolchains", pattern, code=2)[1]
    assert f"error: {message}\n" in error
    assert "or --extra-toolchains names it" in error


@pytest.mark.parametrize(
    "words",
    [
        ("build", "//p:c"),
        ("aquery", "//p:c"),
        ("cquery", "//p:c"),
        ("explain", "//p:c"),
    ],
)
def test_every_command_that_takes_the_flag_says_how_toolchains_were_chosen(
    run: Run, words: tuple[str, ...]
) -> None:
    said = run(*words, "--toolchain-resolution-debug", "--platform", "//platforms:drone")[1]
    assert said.count("`//toolchains:compiler` for `//platforms:drone`:\n") == 1
    assert "  chosen: `//toolchains:a_arm`, which is `//toolchains:arm`\n" in said


def test_the_choice_is_told_when_it_fails(run: Run) -> None:
    flags = ("--toolchain-resolution-debug", "--platform", "//platforms:phone")
    said = run("build", "//p:c", *flags, code=2)[1]
    assert said.index("  none fits") < said.index("error: no toolchain for `//p:c`")


INCOMPATIBLE = """
genrule(name = "arm", outs = ["a.txt"], cmd = "echo > $@", target_compatible_with = ["@platforms//cpu:aarch64"])
genrule(name = "user", srcs = [":arm"], outs = ["u.txt"], cmd = "echo > $@")
genrule(name = "free", outs = ["f.txt"], cmd = "echo > $@")
"""


def test_what_is_skipped_is_told_by_every_build_and_not_only_the_first(run: Run) -> None:
    Path("p/BUILD.models").write_text(INCOMPATIBLE)
    for summary in ("built 1 target, 2 skipped: 1 executed", "//p:free is up to date, 2 skipped"):
        out, said = run("build", "//p/...", "--json")
        assert summary in said
        assert "skipped //p:arm: it must have `@platforms//cpu:aarch64`, and" in said
        arm, user = json.loads(out)["incompatible"]
        assert (arm["label"], user["label"]) == ("//p:arm", "//p:user")
        assert user["reason"].startswith("it needs `//p:arm`: it must have")
    Path("modelbuild-out/p/f.txt").unlink()  # Neither nothing to do nor everything to load.
    assert "2 skipped" in run("build", "//p/...")[1]
    assert "skipped" not in run("build", "//p/...", "--quiet")[1]
    assert "3 targets" in run("build", "//p/...", "--platform", "//platforms:drone")[1]


def test_who_names_a_platform_that_is_not_there(run: Run) -> None:
    said = run("build", "//p:c", "--platform", "//platforms:dron", code=2)[1]
    assert "   = --platform names it\nhint: did you mean `:drone`?" in said
    Path("modelbuild.toml").write_text('[build]\nplatform = "//platforms:dron"\n')
    said = run("build", "//p:c", code=2)[1]
    assert "   = `platform` in modelbuild.toml names it\nhint: did you mean `:drone`?" in said


def test_cquery_follows_the_branches_that_are_taken(run: Run, tmp_path: Path) -> None:
    """Nothing behind the other branches is there, neither targets nor files, and they may lead nowhere."""
    for name in ("arm.txt", "other.txt"):
        (tmp_path / "p" / name).write_text("")
    (tmp_path / "p/BUILD.models").write_text("""
filegroup(
    name = "t",
    srcs = select({
        ":fast_arm": ["@nowhere//p:x"],
        "@platforms//cpu:arm64": [":on_arm"],
        "//conditions:default": ["other.txt"],
    }),
)
filegroup(name = "on_arm", srcs = ["arm.txt"])
config_setting(name = "fast_arm", constraint_values = ["//platforms:fast", "@platforms//cpu:arm64"])
""")
    drone, _ = run("cquery", "deps(//p:t)", "--platform", "//platforms:drone")
    assert drone.split("\n")[:-1] == [
        "//p:arm.txt (null)",
        "//p:on_arm (any)",
        "//p:t (//platforms:drone)",
    ]
    phone, _ = run("cquery", "deps(//p:t)", "--platform", "//platforms:phone")
    assert phone.split("\n")[:-1] == ["//p:other.txt (null)", "//p:t (//platforms:phone)"]
    _, said = run("cquery", "deps(//p:t)", "--platform", "//platforms:fast-drone", code=2)
    assert "no installed package provides repository `@nowhere`" in said

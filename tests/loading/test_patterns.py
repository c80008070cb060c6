"""Target patterns mean what they mean in Bazel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label
from modelbuild.loading.patterns import parse_pattern

if TYPE_CHECKING:
    from tests.loading.conftest import Tree

_SEGMENT = st.from_regex(r"[a-z][a-z0-9_-]{0,5}", fullmatch=True)
_PACKAGE = st.lists(_SEGMENT, max_size=3).map("/".join)


@pytest.fixture
def tests(tree: Tree) -> Tree:
    """`//:r`, `//a:a`, `//a:m` (manual), `//a/b:x`, `//a/b:g` which makes `g.txt`, tests in `//t`."""
    tree.write("BUILD.models", "filegroup(name = 'r')\n")
    tree.write(
        "a/BUILD.models", "filegroup(name = 'a', srcs = ['f.py'])\nfilegroup(name = 'm', tags = ['manual'])\n"
    )
    tree.write("a/f.py")
    tree.write(
        "a/b/BUILD.models",
        "filegroup(name = 'x')\ngenrule(name = 'g', outs = ['g.txt'], cmd = 'echo > $@')\nexports_files(['e'])\n",
    )
    tree.write("a/b/e")
    tree.write(
        "rules/rule.py", "from modelbuild.api import Rule\nclass CheckTest(Rule):\n    is_test = True\n"
    )
    tree.write("rules/BUILD.models")
    tree.write(
        "t/BUILD.models",
        "load('//rules:rule.py', 'check_test')\n"
        "check_test(name = 'one', tags = ['fast'])\ncheck_test(name = 'two', tags = ['slow'])\n"
        "check_test(name = 'hand', tags = ['manual', 'fast'])\nfilegroup(name = 'no')\n"
        "test_suite(name = 'every')\n"
        "test_suite(name = 'fast', tags = ['fast', 'manual'])\n"
        "test_suite(name = 'not_slow', tags = ['-slow'])\n"
        "test_suite(name = 'listed', tests = [':hand', ':two', ':fast'], tags = ['manual'])\n",
    )
    return tree


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("//:r", "//:r"),
        ("//a", "//a:a"),
        ("//a:all", "//a:a"),
        ("//a:m", "//a:m"),
        ("//a:*", "//a:a //a:BUILD.models //a:f.py"),
        ("//a:all-targets", "//a:a //a:BUILD.models //a:f.py"),
        ("//a/...", "//a:a //a/b:x //a/b:g"),
        ("//a/...:all", "//a:a //a/b:x //a/b:g"),
        ("//a/b:*", "//a/b:x //a/b:g //a/b:BUILD.models //a/b:e //a/b:g.txt"),
        ("//a/... -//a:a", "//a/b:x //a/b:g"),
        ("//a/... -//a/b/...", "//a:a"),
        ("//a:m //a:a //a/b:x -//a:all", "//a/b:x"),
        ("//t:every -//t:one", "//t:one //t:two"),
        ("//a/... -//a/b/... //a/b:x", "//a:a //a/b:x"),
        ("-//a:a //a:a", "//a:a"),
        ("//a:a //a:a", "//a:a"),
        ("//a/b:g.txt", "//a/b:g.txt"),
        ("//a:f.py", "//a:f.py"),
        ("a", "//a:a"),
        ("a:a", "//a:a"),
        ("a/b:x", "//a/b:x"),
        ("a/b/x", "//a/b:x"),
        ("a/f.py", "//a:f.py"),
        ("a/BUILD.models", "//a:BUILD.models"),
        (":r", "//:r"),
        ("r", "//:r"),
        ("a/...", "//a:a //a/b:x //a/b:g"),
        ("//t:fast", "//t:one"),
        ("//t:not_slow", "//t:one"),
        ("//t:every", "//t:one //t:two"),
        ("//t:listed", "//t:hand //t:two //t:one"),
    ],
)
def test_matches(tests: Tree, patterns: str, expected: str) -> None:
    assert tests.match(*patterns.split()) == expected.split()


@pytest.mark.parametrize(
    ("working_package", "pattern", "expected"),
    [
        ("a", ":a", "//a:a"),
        ("a", "a", "//a:a"),
        ("a", "b:x", "//a/b:x"),
        ("a", "b/x", "//a/b:x"),
        ("a/b", "...", "//a/b:x //a/b:g"),
        ("a", "b/...", "//a/b:x //a/b:g"),
        ("a", ":all", "//a:a"),
        ("a", "f.py", "//a:f.py"),
        ("a", "//:r", "//:r"),
    ],
)
def test_relative_patterns(tests: Tree, working_package: str, pattern: str, expected: str) -> None:
    assert tests.match(pattern, working_package=working_package) == expected.split()


def test_tests_only(tests: Tree) -> None:
    assert tests.match("//...", tests_only=True) == ["//t:one", "//t:two"]
    assert tests.match("//t:hand", "//t:no", tests_only=True) == ["//t:hand"]
    with pytest.raises(LoadError, match="no test matches"):
        tests.match("//t:no", tests_only=True)


def test_a_target_named_all_wins_over_the_wildcard(tree: Tree) -> None:
    tree.write("BUILD.models", "filegroup(name = 'all')\nfilegroup(name = 'x')\n")
    assert tree.match("//:all") == ["//:all"]
    assert tree.match("//...") == ["//:all", "//:x"]


def test_a_package_that_takes_part_in_no_wildcard_is_not_evaluated(tree: Tree) -> None:
    tree.write("a/BUILD.models", "filegroup(name = 'a')\n")
    tree.write("b/BUILD.models", "broken(")
    assert tree.match("//a/...") == ["//a:a"]


@given(package=_PACKAGE, name=_SEGMENT, negative=st.booleans())
def test_a_label_is_a_pattern_of_itself(package: str, name: str, negative: bool) -> None:
    pattern = parse_pattern(f"{'-' if negative else ''}//{package}:{name}")
    if name != "all":
        assert (pattern.kind, pattern.label) == ("target", Label("", package, name))
    assert pattern.negative == negative


@given(text=st.text(alphabet="ab/:.*@-\n ~", max_size=12))
def test_any_text_is_a_pattern_or_a_load_error(text: str) -> None:
    try:
        pattern = parse_pattern(text, "w")
    except LoadError:
        return
    assert pattern.label.package.count("//") == 0
    assert ".." not in pattern.label.package.split("/")


@given(package=_PACKAGE, name=_SEGMENT, inside=_PACKAGE)
def test_labels_round_trip(package: str, name: str, inside: str) -> None:
    label = Label("", package, name)
    assert parse_label(str(label), inside) == label
    assert parse_label(f":{name}", package) == parse_label(name, package) == label


@given(text=st.text(max_size=12))
def test_any_text_is_a_label_or_a_load_error(text: str) -> None:
    try:
        label = parse_label(text, "p")
    except LoadError:
        return
    assert parse_label(str(label)) == label

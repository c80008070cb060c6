"""What a workspace means: targets, files, visibility, macros, facts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label
from modelbuild.loading.select import Select, choose_default, resolve_select

if TYPE_CHECKING:
    from tests.loading.conftest import Tree

GROUP = "filegroup(name = '{}', srcs = {})\n"


def test_dependencies_come_first_and_only_what_is_needed_is_loaded(tree: Tree) -> None:
    tree.write("a/BUILD.models", "filegroup(name = 'x', srcs = ['//b:y', ':z'])\nfilegroup(name = 'z')\n")
    tree.write("b/BUILD.models", "filegroup(name = 'y', visibility = ['//a:__pkg__'])\n")
    tree.write("c/BUILD.models", "this is no Starlark")
    graph = tree.load("//a:x")
    order = [str(label) for label in graph.order]
    assert sorted(order) == ["//a:x", "//a:z", "//b:y"]
    assert order[-1] == "//a:x"
    assert set(graph.packages) == {"//a", "//b"}


def test_output_files_are_labels_of_their_target(tree: Tree) -> None:
    tree.write(
        "BUILD.models",
        "genrule(name = 'g', srcs = ['in.txt'], outs = ['d/out.txt'], cmd = 'x')\n"
        "filegroup(name = 'f', srcs = ['d/out.txt'])\n",
    )
    tree.write("in.txt")
    graph = tree.load("//:f")
    assert graph.generated == {parse_label("//:d/out.txt"): parse_label("//:g")}
    assert [label.name for label in graph.order] == ["g", "f"]
    assert graph.sources == {parse_label("//:in.txt"): str(tree.root / "in.txt")}
    assert tree.match("//:d/out.txt") == ["//:d/out.txt"]
    owner = graph.owner(parse_label("//:d/out.txt"))
    assert owner is not None
    assert owner.label.name == "g"


def test_macro_chain_and_location(tree: Tree) -> None:
    tree.write(
        "lib/defs.bzl",
        "def outer(name):\n    _inner(name)\n\ndef _inner(name):\n"
        "    native.filegroup(name = name, srcs = native.glob(['*.txt']), tags = [native.package_name()])\n",
    )
    tree.write("lib/BUILD.models")
    tree.write(
        "p/BUILD.models", "load('//lib:defs.bzl', renamed = 'outer')\n\nrenamed(\n    name = 'x',\n)\n"
    )
    tree.write("p/a.txt")
    target = tree.load("//p:x").targets[parse_label("//p:x")]
    assert (target.location.path, target.location.line) == ("p/BUILD.models", 3)
    assert [(f.path, f.line, f.function) for f in target.chain] == [
        ("lib/defs.bzl", 2, "outer"),
        ("lib/defs.bzl", 5, "_inner"),
    ]
    assert target.source_line() == "renamed("
    assert target.place == "p/BUILD.models:3, in macro `outer`"
    assert target.tags == ("p",)
    assert [str(label) for label in target.dependencies] == ["//p:a.txt"]


def test_print_is_kept_with_its_place(tree: Tree) -> None:
    tree.write("BUILD.models", "filegroup(name = 'x')\nprint('n', [1], sep = '-')\n")
    assert tree.load("//:x").messages == ("BUILD.models:2: n-[1]",)


def test_a_rule_class_is_loaded_from_a_workspace_file(tree: Tree) -> None:
    tree.write("toolchains/x/BUILD.models")
    tree.write(
        "toolchains/x/rule.py",
        "from __future__ import annotations\nfrom modelbuild.api import Rule, Files\n"
        "class MyTool(Rule):\n    srcs: list[Files] = []\n    level: int = 1\n",
    )
    tree.write("lib/BUILD.models")
    tree.write(
        "lib/m.bzl", "load('//toolchains/x:rule.py', 'my_tool')\ndef m(name):\n    my_tool(name = name)\n"
    )
    tree.write(
        "BUILD.models",
        "load('//lib:m.bzl', 'm')\nload('//toolchains/x:rule.py', tool = 'my_tool')\n"
        "tool(name = 'a', level = 3)\nm(name = 'b')\n",
    )
    graph = tree.load("//:all")
    a, b = (graph.targets[parse_label(f"//:{name}")] for name in "ab")
    assert a.rule_class is b.rule_class
    assert a.rule == "my_tool"
    assert a.instance is not None
    assert a.instance.model_dump()["level"] == 3
    assert str(tree.root / "toolchains/x/rule.py") in graph.facts.files
    assert sorted(os.listdir(tree.root / "toolchains/x")) == ["BUILD.models", "rule.py"]


def test_none_means_the_default_as_in_bazel(tree: Tree) -> None:
    tree.write("BUILD.models", "filegroup(name = 'x', srcs = None, visibility = None)\n")
    assert tree.match("//:x") == ["//:x"]


def test_select_branches_are_all_dependencies_until_configured(tree: Tree) -> None:
    tree.write(
        "BUILD.models",
        "filegroup(name = 'c')\n"
        "filegroup(name = 'x', srcs = ['a'] + select({':c': ['b'], '//conditions:default': []}) + ['d'])\n",
    )
    for name in "abd":
        tree.write(name)
    target = tree.load("//:x").targets[parse_label("//:x")]
    assert [label.name for label in target.dependencies] == ["a", "b", "d"]
    assert [str(label) for label in target.conditions] == ["//:c"]
    assert target.instance is None
    (chosen,) = [v for v in target.attributes["srcs"] if isinstance(v, Select)]
    assert chosen.branches == ((":c", ["b"]), ("//conditions:default", []))
    assert resolve_select(target.attributes, choose_default)["srcs"] == ["a", "d"]


@pytest.mark.parametrize(
    ("visibility", "user", "visible"),
    [
        ("['//visibility:public']", "c", True),
        ("['//visibility:private']", "c", False),
        ("[]", "c", False),
        ("['//c:__pkg__']", "c", True),
        ("['//c:__pkg__']", "c/d", False),
        ("['//c:__subpackages__']", "c/d", True),
        ("['//c:__subpackages__']", "cd", False),
        ("['//:__subpackages__']", "c/d", True),
        ("['//g:friends']", "c", True),
        ("['//g:friends']", "c/d", False),
        ("['//g:family']", "c", True),
        ("['//g:family']", "e/f", True),
    ],
)
def test_visibility(tree: Tree, visibility: str, user: str, visible: bool) -> None:
    tree.write("a/BUILD.models", f"filegroup(name = 'x', visibility = {visibility})\n")
    tree.write(
        "g/BUILD.models",
        "package_group(name = 'friends', packages = ['//c/...', '-//c/d'])\n"
        "package_group(name = 'family', packages = ['//e/...'], includes = [':friends'])\n",
    )
    tree.write(f"{user}/BUILD.models", "filegroup(name = 'u', srcs = ['//a:x'])\n")
    if visible:
        assert tree.match(f"//{user}:u") == [f"//{user}:u"]
    else:
        with pytest.raises(LoadError, match="not visible"):
            tree.load(f"//{user}:u")


def test_default_visibility_holds_wherever_package_stands(tree: Tree) -> None:
    tree.write("a/BUILD.models", "filegroup(name = 'x')\npackage(default_visibility = ['//b:__pkg__'])\n")
    tree.write("b/BUILD.models", "filegroup(name = 'u', srcs = ['//a:x'])\n")
    assert tree.match("//b:u") == ["//b:u"]


def test_source_files_of_other_packages(tree: Tree) -> None:
    """Exported files are public; files that are only used in their package have its default visibility."""
    tree.write(
        "a/BUILD.models",
        "package(default_visibility = ['//b:__pkg__'])\nexports_files(['e'])\nfilegroup(name = 'x', srcs = ['i'])\n",
    )
    for name in "eiu":
        tree.write(f"a/{name}")
    for package in "bc":
        for name in "eiu":
            tree.write(f"{package}/{name}/BUILD.models", "")
    tree.write("b/BUILD.models", "".join(GROUP.format(n, [f"//a:{n}"]) for n in "eiu"))
    tree.write("c/BUILD.models", "".join(GROUP.format(n, [f"//a:{n}"]) for n in "eiu"))
    assert tree.match("//b:e", "//b:i", "//c:e") == ["//b:e", "//b:i", "//c:e"]
    for label in ("//c:i", "//b:u"):
        with pytest.raises(LoadError):
            tree.load(label)


def test_facts_name_all_that_the_answer_rested_on(tree: Tree) -> None:
    tree.write("BUILD.models", "load('//lib:a.bzl', 'm')\nm()\nfilegroup(name = 'd', srcs = ['sub/f'])\n")
    tree.write("lib/BUILD.models")
    tree.write("lib/a.bzl", "load(':b.bzl', 'n')\ndef m():\n    n()\n")
    tree.write("lib/b.bzl", "def n():\n    native.filegroup(name = 'x', srcs = native.glob(['src/**']))\n")
    tree.write("src/deep/f.txt")
    tree.write("sub/f")
    tree.write("other/f")
    facts = tree.load("//:x", "//:d").facts
    relative = [os.path.relpath(path, tree.root) for path in facts.files]
    assert relative == ["BUILD.models", "lib/BUILD.models", "lib/a.bzl", "lib/b.bzl", "modelbuild.toml"]
    assert {os.path.relpath(p, tree.root) for p in facts.directories} == {".", "src", "src/deep"}
    assert str(tree.root / "sub/BUILD.models") in facts.absent
    everywhere = tree.load("//...").facts.directories
    assert str(tree.root / "other") in everywhere


def test_a_json_file_is_loaded_as_the_data_in_it_and_is_a_fact(tree: Tree) -> None:
    tree.write(
        "lib/m.bzl",
        "load('//:d/c.json', data = 'value')\ndef m(name):\n    native.filegroup(name = name, tags = data['tags'])\n",
    )
    tree.write("lib/BUILD.models")
    tree.write(
        "BUILD.models",
        "load(':d/c.json', config = 'value')\nload('//lib:m.bzl', 'm')\nm('x')\n"
        "filegroup(name = 'y', tags = [str(config | {'more': None})])\n",
    )
    tree.write(
        "d/c.json", '{"tags": ["a"], "eps": 1e-06, "deep": {"on": true, "off": null}, "theta": 1000000.0}'
    )
    graph = tree.load("//:x", "//:y")
    assert graph.targets[parse_label("//:x")].attributes["tags"] == ["a"]
    shown = graph.targets[parse_label("//:y")].attributes["tags"][0]
    assert shown == (
        '{"tags": ["a"], "eps": 1e-06, "deep": {"on": True, "off": None}, "theta": 1e+06, "more": None}'
    )
    relative = [os.path.relpath(path, tree.root) for path in graph.facts.files]
    assert relative == ["BUILD.models", "d/c.json", "lib/BUILD.models", "lib/m.bzl", "modelbuild.toml"]


def test_a_chain_of_thousands_of_targets_does_not_recurse(tree: Tree) -> None:
    lines = [GROUP.format(f"t{i}", f"[':t{i + 1}']") for i in range(2000)]
    tree.write("BUILD.models", "".join(lines) + "filegroup(name = 't2000')\n")
    assert len(tree.load("//:t0").order) == 2001


def test_testonly_may_depend_on_testonly(tree: Tree) -> None:
    tree.write(
        "BUILD.models",
        "package(default_testonly = True)\nfilegroup(name = 'a')\nfilegroup(name = 'b', srcs = [':a'])\n",
    )
    assert tree.match("//:b") == ["//:b"]


def test_an_alias_of_what_is_testonly_need_not_be_so_itself(tree: Tree) -> None:
    tree.write(
        "BUILD.models",
        "filegroup(name = 'a', testonly = True)\nalias(name = 'b', actual = ':a')\n"
        "alias(name = 'c', actual = ':d', testonly = True)\nfilegroup(name = 'd')\n"
        "filegroup(name = 'e', srcs = [':b', ':c'], testonly = True)\nfilegroup(name = 'f', srcs = [':c'])\n",
    )
    assert tree.match("//:b", "//:e", "//:f") == ["//:b", "//:e", "//:f"]


def test_a_name_may_hold_slashes(tree: Tree) -> None:
    tree.write("BUILD.models", "filegroup(name = 'a/b')\n")
    assert tree.load("//:a/b").requested == (Label("", "", "a/b"),)


def test_an_output_may_have_the_name_of_its_target(tree: Tree) -> None:
    tree.write(
        "BUILD.models", "genrule(name = 'x', outs = ['x'], cmd = '')\nfilegroup(name = 'f', srcs = ['x'])\n"
    )
    graph = tree.load("//:f")
    assert graph.generated == {}
    assert [label.name for label in graph.order] == ["x", "f"]


def test_existing_rules_are_known_to_macros(tree: Tree) -> None:
    tree.write(
        "m.bzl",
        "def m():\n    x = native.existing_rule('x')\n    if not native.existing_rule('y'):\n"
        "        native.filegroup(name = 'y', srcs = x['srcs'], tags = [x['kind'], str(len(native.existing_rules()))])\n",
    )
    tree.write(
        "BUILD.models",
        "load(':m.bzl', 'm')\nfilegroup(name = 'x', srcs = ['a'] + select({'//conditions:default': ['b']}))\nm()\n",
    )
    tree.write("a")
    tree.write("b")
    target = tree.load("//:y").targets[parse_label("//:y")]
    assert target.tags == ("filegroup", "1")
    assert [label.name for label in target.dependencies] == ["a", "b"]


def test_tabs_are_space_outside_of_strings(tree: Tree) -> None:
    tree.write("BUILD.models", "filegroup(\n\tname = 'x',\n\ttags = ['a\tb'],  # it's\there\n)\n")
    assert tree.load("//:x").targets[parse_label("//:x")].tags == ("a\tb",)


def test_numbers_stand_for_booleans(tree: Tree) -> None:
    tree.write("BUILD.models", "filegroup(name = 'x', testonly = 1)\n")
    assert tree.load("//:x").targets[parse_label("//:x")].testonly

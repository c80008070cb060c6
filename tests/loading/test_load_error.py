"""Every mistake in a workspace, and exactly what a person reads about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import LoadError
from modelbuild.loading.evaluator import Limits
from modelbuild.loading.load import load_graph
from modelbuild.loading.workspace import open_workspace
from modelbuild.testing import assert_golden

GOLDEN = Path(__file__).parent.parent / "golden" / "loading"
BUILD = "BUILD.models"

RULES = """
from __future__ import annotations
from typing import Annotated, Literal
from pydantic import Field
from modelbuild.api import Dep, File, ModelInfo, Rule

class Squeeze(Rule):
    model: Dep[ModelInfo]
    scheme: Literal["gptq", "awq", "rtn"]
    bits: Literal[2, 3, 4, 8] = 4
    ratio: dict[str, float] = {}
    steps: Annotated[int, Field(gt=0)] = 1
    script: File | None = None
    sizes: list[int] = []

class Check(Rule):
    is_test = True
"""
SQUEEZE = 'load("//rules:rule.py", "squeeze")\n'

CASES: dict[str, tuple[dict[str, str], list[str]]] = {
    # Starlark
    "unknown_rule": ({BUILD: "\ngenrul(name = 'x')\n"}, ["//..."]),
    "syntax": ({BUILD: "genrule(\n    name = 'x'\n    outs = []\n)\n"}, ["//..."]),
    "def_in_build": ({BUILD: "def f():\n    pass\n"}, ["//..."]),
    "if_in_build": ({BUILD: "if True:\n    x = 1\n"}, ["//..."]),
    "fail": (
        {BUILD: "load(':m.bzl', 'm')\n\nm('x')\n", "m.bzl": "def m(name):\n    fail('no', name)\n"},
        ["//..."],
    ),
    "type_error_in_macro": (
        {BUILD: "load(':m.bzl', 'm')\nm('x')\n", "m.bzl": "def m(name):\n    return name + 1\n"},
        ["//..."],
    ),
    "recursion": (
        {BUILD: "load(':m.bzl', 'm')\nm('x')\n", "m.bzl": "def m(name):\n    return m(name)\n"},
        ["//..."],
    ),
    "recursion_that_ends": (
        {
            BUILD: "load(':m.bzl', 'm')\nm('x', 3)\n",
            "m.bzl": "def m(name, n):\n    native.filegroup(name = name + str(n))\n    if n:\n        m(name, n - 1)\n",
        },
        ["//..."],
    ),
    "loop": (
        {
            BUILD: "load(':m.bzl', 'm')\nm()\n",
            "m.bzl": "def m():\n    for a in range(1000000000):\n        for b in range(1000000000):\n            pass\n",
        },
        ["//..."],
    ),
    "native_loop": ({BUILD: "x = max(range(2000000000))\n"}, ["//..."]),
    "giant_string": ({BUILD: "x = 'a' * 2000000000\n"}, ["//..."]),
    "giant_list": ({BUILD: "x = [0] * 2000000000\n"}, ["//..."]),
    "giant_power": ({BUILD: "x = [0] * 10**10\n"}, ["//..."]),
    "giant_count": ({BUILD: "x = [0] * 10000000000\n"}, ["//..."]),
    "giant_doubling": (
        {
            BUILD: "load(':m.bzl', 'm')\nm()\n",
            "m.bzl": "def m():\n    s = 'x' * 1000\n    for _ in range(40):\n        s = s + s\n",
        },
        ["//..."],
    ),
    "deep_nesting": ({BUILD: "x = " + "[" * 20000 + "]" * 20000}, ["//..."]),
    "load_missing_file": ({BUILD: "\nload(':m.bzl', 'm')\n"}, ["//..."]),
    "load_missing_symbol": (
        {BUILD: "load(':m.bzl', 'mat')\nmat()\n", "m.bzl": "def mac():\n    pass\n"},
        ["//..."],
    ),
    "load_private": ({BUILD: "load(':m.bzl', '_m')\n", "m.bzl": "def _m():\n    pass\n"}, ["//..."]),
    "load_relative_path": ({BUILD: "load('m.bzl', 'm')\n", "m.bzl": ""}, ["//..."]),
    "load_no_package": ({BUILD: "load('//lib:m.bzl', 'm')\n", "lib/m.bzl": "m = 1\n"}, ["//..."]),
    "load_cycle": (
        {
            BUILD: "load(':a.bzl', 'a')\n",
            "a.bzl": "load(':b.bzl', 'b')\na = 1\n",
            "b.bzl": "load(':a.bzl', 'a')\nb = 1\n",
        },
        ["//..."],
    ),
    "bzl_syntax": ({BUILD: "load(':m.bzl', 'm')\n", "m.bzl": "def m(:\n    pass\n"}, ["//..."]),
    "bzl_bare_rule": (
        {BUILD: "load(':m.bzl', 'm')\nm()\n", "m.bzl": "def m():\n    genrule(name = 'x')\n"},
        ["//..."],
    ),
    "bzl_rule_at_top": ({BUILD: "load(':m.bzl', 'm')\n", "m.bzl": "m = native.glob(['*'])\n"}, ["//..."]),
    "json_syntax": ({BUILD: "load(':c.json', c = 'value')\n", "c.json": '{\n "a": 1,\n}\n'}, ["//..."]),
    "json_twice": ({BUILD: "load(':c.json', c = 'value')\n", "c.json": '{"a": 1, "a": 2}'}, ["//..."]),
    "json_no_number": ({BUILD: "load(':c.json', c = 'value')\n", "c.json": '{"a": NaN}'}, ["//..."]),
    "json_deep": ({BUILD: "load(':c.json', c = 'value')\n", "c.json": "[" * 100000}, ["//..."]),
    "json_other_name": ({BUILD: "load(':c.json', 'a')\n", "c.json": '{"a": 1}'}, ["//..."]),
    "load_of_text": ({BUILD: "load(':c.txt', 'a')\n", "c.txt": "a"}, ["//..."]),
    "function_as_attribute": ({BUILD: "filegroup(name = 'x', srcs = glob)\n"}, ["//..."]),
    "not_utf8": ({BUILD: "# ok\nx = '\udcff'\n"}, ["//..."]),
    "byte_order_mark": ({BUILD: "\ufefffilegroup(name = 'x')\n"}, ["//..."]),
    "infinite": (
        {BUILD: SQUEEZE + "squeeze(name = 'x', model = ':m', ratio = {'mlp': 1e308 * 10})\n"},
        ["//..."],
    ),
    "no_number": ({BUILD: "genrule(name = 'nan', outs = [], local = float('nan'))\n"}, ["//..."]),
    "infinite_in_branch": (
        {
            BUILD: SQUEEZE + "squeeze(\n    name = 'x',\n    model = ':m',\n"
            "    ratio = select({'//conditions:default': {'mlp': -float('inf'), 'why': 'inf', 'no': None}}),\n)\n"
        },
        ["//..."],
    ),
    "no_number_in_branch": (
        {
            BUILD: "load(':m.bzl', 'm')\nm()\n",
            "m.bzl": "def m():\n    native.genrule(name = 'g', outs = [], local = select({'a': float('nan')}))\n",
        },
        ["//..."],
    ),
    "endless_number": ({BUILD: "filegroup(name = 'x', testonly = 1 << 20000)\n"}, ["//..."]),
    "tuple_as_key": ({BUILD: "filegroup(name = 'x', exec_properties = {(1, 2): 'y'})\n"}, ["//..."]),
    # glob
    "glob_parent": ({BUILD: "filegroup(\n    name = 'x',\n    srcs = glob(['../*']),\n)\n"}, ["//..."]),
    "glob_absolute": ({BUILD: "glob(['/etc/*'])\n"}, ["//..."]),
    "glob_empty_pattern": ({BUILD: "glob([''])\n"}, ["//..."]),
    "glob_string": ({BUILD: "glob('*.txt')\n"}, ["//..."]),
    "glob_nothing": ({BUILD: "glob(['*.nope'], allow_empty = False)\n"}, ["//..."]),
    "glob_stars": ({BUILD: "glob(['a**'])\n"}, ["//..."]),
    "glob_bad_flag": ({BUILD: "glob(['a'], allow_empty = 'x')\n"}, ["//..."]),
    "glob_bad_argument": ({BUILD: "glob(['a'], excludes = [])\n"}, ["//..."]),
    # declarations
    "no_name": ({BUILD: "filegroup(srcs = [])\n"}, ["//..."]),
    "empty_name": ({BUILD: "filegroup(name = '')\n"}, ["//..."]),
    "bad_name": ({BUILD: "filegroup(name = 'a//b')\n"}, ["//..."]),
    "positional": ({BUILD: "filegroup('x')\n"}, ["//..."]),
    "duplicate": ({BUILD: "filegroup(name = 'x')\nalias(name = 'x', actual = ':x')\n"}, ["//..."]),
    "duplicate_output": (
        {BUILD: "".join(f"genrule(name = '{n}', outs = ['o'], cmd = '')\n" for n in "ab")},
        ["//..."],
    ),
    "output_is_target": (
        {BUILD: "genrule(name = 'a', outs = ['b'], cmd = '')\nfilegroup(name = 'b')\n"},
        ["//..."],
    ),
    "output_below_output": ({BUILD: "genrule(name = 'x', outs = ['o', 'o/p'], cmd = '')\n"}, ["//..."]),
    "duplicate_label": (
        {BUILD: "filegroup(\n    name = 'x',\n    srcs = ['a', ':a'],\n)\n", "a": ""},
        ["//..."],
    ),
    "export_of_target": ({BUILD: "filegroup(name = 'x')\nexports_files(['x'])\n"}, ["//..."]),
    "visibility_mixed": (
        {BUILD: "filegroup(name = 'x', visibility = ['//visibility:public', '//a:__pkg__'])\n"},
        ["//..."],
    ),
    "select_of_strings": (
        {BUILD: "genrule(name = 'x', outs = ['o'], cmd = 'a' + select({'//conditions:default': 'b'}))\n"},
        ["//..."],
    ),
    "leading_colon": ({BUILD: "filegroup(name = ':x')\n"}, ["//..."]),
    "unknown_attribute": (
        {BUILD: SQUEEZE + "squeeze(\n    name = 'x',\n    modl = ':m',\n    scheme = 'rtn',\n)\n"},
        ["//..."],
    ),
    "wrong_literal": (
        {
            BUILD: SQUEEZE
            + "squeeze(\n    name = 'x',\n    model = ':m',\n    scheme = 'gptqq',\n    bits = 5,\n)\n"
        },
        ["//..."],
    ),
    "wrong_types": (
        {
            BUILD: SQUEEZE
            + "squeeze(\n    name = 'x',\n    model = 3,\n    scheme = 'rtn',\n    ratio = {'mlp': 'half'},\n"
            "    steps = 0,\n    script = ':a:b',\n    sizes = [1, 'two'],\n    tags = 'slow',\n)\n"
        },
        ["//..."],
    ),
    "errors_in_two_targets": (
        {BUILD: "filegroup(name = 'a', src = [])\nfilegroup(name = 'b', srcs = 'x')\n"},
        ["//..."],
    ),
    "wrong_in_macro": (
        {
            BUILD: "load(':m.bzl', 'm')\nm(name = 'x')\n",
            "m.bzl": "def m(name):\n    native.filegroup(name = name, src = [])\n",
        },
        ["//..."],
    ),
    "wrong_in_branch": (
        {BUILD: "filegroup(\n    name = 'x',\n    srcs = select({'//conditions:default': [3]}),\n)\n"},
        ["//..."],
    ),
    "select_name": ({BUILD: "filegroup(name = select({'//conditions:default': 'a'}))\n"}, ["//..."]),
    "select_empty": ({BUILD: "x = select({})\n"}, ["//..."]),
    "select_key": ({BUILD: "x = select({1: []})\n"}, ["//..."]),
    "select_message": ({BUILD: "x = select({':a': []}, no_match_error = 3)\n"}, ["//..."]),
    "select_nested": ({BUILD: "x = select({'a': select({'b': []})})\n"}, ["//..."]),
    "select_scalar_concatenated": (
        {BUILD: "filegroup(name = 'x', srcs = ['a'] + select({'//conditions:default': 'b'}))\n"},
        ["//..."],
    ),
    "package_twice": ({BUILD: "package()\npackage()\n"}, ["//..."]),
    "package_argument": ({BUILD: "package(default_visiblity = [])\n"}, ["//..."]),
    "package_positional": ({BUILD: "package(['//visibility:public'])\n"}, ["//..."]),
    "package_wrong_type": ({BUILD: "package(default_testonly = 'yes')\n"}, ["//..."]),
    "group_wrong_type": ({BUILD: "package_group(\n    name = 'g',\n    packages = '//a',\n)\n"}, ["//..."]),
    "licenses_nothing": ({BUILD: "licenses()\n"}, ["//..."]),
    "package_of_dots": ({BUILD: "filegroup(name = 'x', visibility = ['//a/...'])\n"}, ["//..."]),
    "visibility_word": ({BUILD: "filegroup(name = 'x', visibility = ['//visibility:pubic'])\n"}, ["//..."]),
    "export_of_other_package": ({BUILD: "exports_files(['//a:b'])\n"}, ["//..."]),
    # rule files
    "rule_file_symbol": ({BUILD: "load('//rules:rule.py', 'squeze')\n"}, ["//..."]),
    "rule_file_missing": ({BUILD: "load('//rules:rules.py', 'squeeze')\n"}, ["//..."]),
    "rule_file_outside": ({BUILD: "load(':r.py', 'r')\n", "r.py": ""}, ["//..."]),
    "rule_file_syntax": ({BUILD: "load('//rules:r.py', 'r')\n", "rules/r.py": "x = 1\ndef f(:\n"}, ["//..."]),
    "rule_file_exits": (
        {BUILD: "load('//rules:r.py', 'r')\n", "rules/r.py": "\nraise SystemExit(3)\n"},
        ["//..."],
    ),
    "rule_file_raises": ({BUILD: "load('//rules:r.py', 'r')\n", "rules/r.py": "\nx = 1 / 0\n"}, ["//..."]),
    "repository_unknown": ({BUILD: "load('@acme//:r.py', 'r')\n"}, ["//..."]),
    "repository_unknown_dependency": (
        {BUILD: "filegroup(\n    name = 'x',\n    srcs = ['@acme//models:teacher'],\n)\n"},
        ["//:x"],
    ),
    "repository_unknown_pattern": ({BUILD: "filegroup(name = 'x')\n"}, ["@acme//models:teacher"]),
    # labels
    "no_such_target": ({BUILD: "filegroup(name = 'teacher')\n"}, ["//:techer"]),
    "no_such_dependency": (
        {
            BUILD: "filegroup(name = 'teacher')\nfilegroup(\n    name = 'x',\n    srcs = [\n        ':techer',\n    ],\n)\n"
        },
        ["//:x"],
    ),
    "no_such_dependency_in_macro": (
        {
            BUILD: "load(':m.bzl', 'm')\nm(name = 'x')\n",
            "m.bzl": "def m(name):\n    native.filegroup(name = name, srcs = ['gone'])\n",
        },
        ["//:x"],
    ),
    "no_such_package": ({"targets/" + BUILD: ""}, ["//target:x"]),
    "no_such_package_dependency": ({BUILD: "filegroup(name = 'x', srcs = ['//gone:y'])\n"}, ["//:x"]),
    "foreign_build_file": ({"a/BUILD.bazel": ""}, ["//a:x"]),
    "build_file_is_directory": ({"a/BUILD.models/x": ""}, ["//a:x"]),
    "file_of_that_name": (
        {"a/" + BUILD: "", "a/f.txt": "", BUILD: "filegroup(name = 'x', srcs = ['//a:f.txt'])\n"},
        ["//:x"],
    ),
    "crossing": (
        {"a/" + BUILD: "", BUILD: "filegroup(name = 'x', srcs = ['a/f.txt'])\n", "a/f.txt": ""},
        ["//:x"],
    ),
    "crossing_name": ({"a/" + BUILD: "", BUILD: "filegroup(name = 'a/b')\n"}, ["//..."]),
    "private": (
        {
            "a/" + BUILD: "filegroup(name = 'y')\n",
            BUILD: "filegroup(\n    name = 'x',\n    srcs = ['//a:y'],\n)\n",
        },
        ["//:x"],
    ),
    "private_file": (
        {
            "a/" + BUILD: "filegroup(name = 'y', srcs = ['f'])\n",
            "a/f": "",
            BUILD: "filegroup(name = 'x', srcs = ['//a:f'])\n",
        },
        ["//:x"],
    ),
    "testonly": (
        {BUILD: "filegroup(name = 'y', testonly = True)\nfilegroup(name = 'x', srcs = [':y'])\n"},
        ["//:x"],
    ),
    "testonly_behind_an_alias": (
        {
            BUILD: "filegroup(name = 'y', testonly = True)\nalias(name = 'b', actual = ':y')\n"
            "alias(name = 'a', actual = ':b')\nfilegroup(name = 'x', srcs = [':a'])\n"
        },
        ["//:x"],
    ),
    "missing_by_the_hundred": (
        {BUILD: "filegroup(name = 'x', srcs = [str(i) for i in range(50000)])\n"},
        ["//:x"],
    ),
    "twice_in_a_long_list": (
        {BUILD: "filegroup(name = 'x', srcs = [str(i) for i in range(50000)] + ['49999'])\n"},
        ["//:x"],
    ),
    "cycle": (
        {BUILD: "".join(f"filegroup(name = '{a}', srcs = [':{b}'])\n" for a, b in ("xa", "ab", "bc", "ca"))},
        ["//:x"],
    ),
    "suite_cycle": (
        {BUILD: "".join(f"test_suite(name = '{a}', tests = [':{b}'])\n" for a, b in ("xa", "ab", "ba"))},
        ["//:x"],
    ),
    "self_cycle": ({BUILD: "filegroup(name = 'x', srcs = ['x'])\n"}, ["//:x"]),
    # patterns
    "no_pattern": ({BUILD: ""}, []),
    "empty_workspace": ({}, ["//..."]),
    "nothing_below": ({BUILD: "", "a/f": ""}, ["//a/..."]),
    "matches_nothing": ({BUILD: "filegroup(name = 'x', tags = ['manual'])\n"}, ["//..."]),
    "all_taken_away": ({BUILD: "filegroup(name = 'x')\n"}, ["//...", "-//:x"]),
    "bad_pattern": ({BUILD: ""}, ["//a//b"]),
    "bad_wildcard": ({BUILD: ""}, ["//a/...:x"]),
    "select_outs": (
        {BUILD: "genrule(name = 'x', outs = select({'//conditions:default': ['o']}), cmd = 'x')\n"},
        ["//..."],
    ),
    "load_across_packages": (
        {BUILD: "load('//:a/m.bzl', 'm')\n", f"a/{BUILD}": "", "a/m.bzl": "m = 1\n"},
        ["//..."],
    ),
    "visibility_of_no_group": (
        {BUILD: "filegroup(\n    name = 'x',\n    visibility = ['public'],\n)\n"},
        ["//..."],
    ),
    "suite_of_no_test": (
        {BUILD: "filegroup(name = 'x')\ntest_suite(\n    name = 's',\n    tests = [':x'],\n)\n"},
        ["//:s"],
    ),
}


def write(root: Path, files: dict[str, str]) -> None:
    (root / "modelbuild.toml").touch()
    (root / "rules").mkdir()
    (root / "rules" / "rule.py").write_text(RULES)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("case", CASES)
def test_error_reads_as_in_the_golden_file(case: str, tmp_path: Path) -> None:
    files, patterns = CASES[case]
    write(tmp_path, files)
    if any("load('//rules" in text or SQUEEZE in text for text in files.values()):
        (tmp_path / "rules" / BUILD).touch()
    with pytest.raises(LoadError) as caught:
        load_graph(
            open_workspace(str(tmp_path)),
            patterns,
            limits=Limits(memory_bytes=256 << 20, cpu_seconds=0.2),
        )
    text = str(caught.value) + "\n"
    assert str(tmp_path) not in text
    assert caught.value.exit_code == 2
    assert_golden(f"{case}.txt", text, GOLDEN)

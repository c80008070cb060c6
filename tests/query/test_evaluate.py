from __future__ import annotations

from collections.abc import Iterable

import pytest

from modelbuild.errors import Location, UsageError
from modelbuild.label import Label, parse_label
from modelbuild.query.evaluate import evaluate, needs_siblings, target_patterns
from modelbuild.query.grammar import parse
from modelbuild.query.graph import Node, QueryGraph
from modelbuild.query.output import FORMATS

EDGES = {
    "//t:teacher": ["//d:data"],
    "//t:student": ["//t:teacher", "//d:data"],
    "//t:int4": ["//t:student", "//d:data"],
    "//t:binary": ["//t:int4"],
    "//t:gate_test": ["//t:binary"],
    "//t:suite": ["//t:gate_test"],
    "//d:data": ["//d:data.py"],
    "//d:data.py": [],
    "//d:unused": [],
}
KINDS = {"//d:data.py": "source file", "//t:suite": "test_suite rule", "//d:data": "dataset rule"}


def label(text: str) -> Label:
    return parse_label(text)


def make_graph() -> QueryGraph:
    nodes = [
        Node(
            label(name),
            KINDS.get(name, "train rule"),
            {"steps": 10, "quick": True, "dataset": label("//d:data"), "srcs": [label("//d:data.py")]}
            if name in ("//t:teacher", "//t:student")
            else {},
            frozenset({"steps", "quick", "dataset"}),
            Location("BUILD.models", 3),
            is_test=name.endswith("_test"),
            dependencies=tuple(map(label, needs)),
        )
        for name, needs in EDGES.items()
    ]

    def match(pattern: str) -> Iterable[Label]:
        if pattern.endswith("..."):
            return [node.label for node in nodes if str(node.label).startswith(pattern[:-3]) and node.is_rule]
        return [label(pattern)]

    return QueryGraph(nodes, match, {"d": [label("//d:BUILD.models")]})


def ask(query: str, output: str = "label") -> list[str]:
    graph = make_graph()
    return FORMATS[output](evaluate(parse(query), graph), graph).split("\n")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("//t:teacher", ["//t:teacher"]),
        ("deps(//t:teacher)", ["//d:data", "//d:data.py", "//t:teacher"]),
        ("deps(//t:int4, 1)", ["//d:data", "//t:int4", "//t:student"]),
        ("deps(//t:int4, 0)", ["//t:int4"]),
        ("rdeps(//t:int4, //t:teacher)", ["//t:int4", "//t:student", "//t:teacher"]),
        ("rdeps(//..., //t:teacher, 1)", ["//t:student", "//t:teacher"]),
        ("rdeps(//t:teacher, //t:int4)", [""]),
        ("allpaths(//t:binary, //t:teacher)", ["//t:binary", "//t:int4", "//t:student", "//t:teacher"]),
        ("somepath(//t:binary, //d:data)", ["//t:binary", "//t:int4", "//d:data"]),
        ("somepath(//t:teacher, //t:binary)", [""]),
        ("kind('source file', deps(//t:teacher))", ["//d:data.py"]),
        ("kind(dataset, //...)", ["//d:data"]),
        ("attr(steps, '^10$', //...)", ["//t:student", "//t:teacher"]),
        ("attr(steps, 11, //...)", [""]),
        ("attr(quick, 1, //...)", ["//t:student", "//t:teacher"]),
        ("attr(srcs, '\\[//d:data.py\\]', //t:teacher)", ["//t:teacher"]),
        ("filter('int\\d', //...)", ["//t:int4"]),
        ("labels(dataset, //t:teacher)", ["//d:data"]),
        ("labels(srcs, //t:teacher)", ["//d:data.py"]),
        ("tests(//t:suite)", ["//t:gate_test"]),
        ("tests(//...)", ["//t:gate_test"]),
        ("siblings(//d:data)", ["//d:data", "//d:data.py", "//d:unused"]),
        ("buildfiles(//d:data)", ["//d:BUILD.models"]),
        ("same_pkg_direct_rdeps(//t:teacher)", ["//t:student"]),
        ("some(//...)", ["//t:teacher"]),
        ("deps(//t:student) ^ //d...", ["//d:data"]),
        ("deps(//t:student) - deps(//t:teacher)", ["//t:student"]),
        ("let x = //t:student in deps($x) except $x", ["//d:data", "//d:data.py", "//t:teacher"]),
        ("set(//t:int4 //d:data)", ["//d:data", "//t:int4"]),
        ("//d:data + //d:data", ["//d:data"]),
    ],
)
def test_answers(query: str, expected: list[str]) -> None:
    assert ask(query) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("depz(//a)", "the query language has no function `depz`"),
        ("deps()", "`deps` was given 0 arguments"),
        ("deps(//t:int4, 1, 2)", "`deps` was given 3 arguments"),
        ("$x", "the query uses `$x`, which no `let` defines"),
        ("kind('[', //...)", "`[` in `kind(...)` is no regular expression"),
        ("deps(1)", "`1` stands where the query needs targets"),
        ("deps(//t:int4, //t:int4)", "`deps` needs a whole number as its last argument"),
        ("kind(deps(//a), //t:int4)", "`kind` needs a word where an expression stands"),
    ],
)
def test_errors(query: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(query)
    assert caught.value.message == message


def test_target_patterns_leave_regexes_and_variables_out() -> None:
    query = "let x = kind('a rule', //a/...) in rdeps(set(//b $x), $x, 1) + attr(n, '//no', //c)"
    assert list(target_patterns(parse(query))) == ["//a/...", "//b", "//c"]


def test_needs_siblings() -> None:
    assert needs_siblings(parse("//a + siblings(//b)"))
    assert not needs_siblings(parse("deps(//b)"))


def test_output_formats() -> None:
    assert ask("deps(//t:teacher)", "label_kind") == [
        "dataset rule //d:data",
        "source file //d:data.py",
        "train rule //t:teacher",
    ]
    assert ask("//d:data", "location") == ["BUILD.models:3: dataset rule //d:data"]
    assert ask("//...", "package") == ["d", "t"]
    assert ask("deps(//t:teacher)", "graph") == [
        "digraph modelbuild {",
        "  node [shape=box];",
        '  "//d:data"',
        '  "//d:data" -> "//d:data.py"',
        '  "//d:data.py"',
        '  "//t:teacher"',
        '  "//t:teacher" -> "//d:data"',
        "}",
    ]
    assert ask("deps(//t:student)", "minrank") == [
        "0 //t:student",
        "1 //d:data",
        "1 //t:teacher",
        "2 //d:data.py",
    ]
    assert ask("deps(//t:student)", "maxrank")[-1] == "3 //d:data.py"
    assert ask("//t:teacher", "build") == [
        "# BUILD.models:3",
        "train(",
        '    name = "teacher",',
        "    steps = 10,",
        "    quick = True,",
        '    dataset = "//d:data",',
        ")",
    ]

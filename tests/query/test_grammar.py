from __future__ import annotations

import pytest

from modelbuild.errors import UsageError
from modelbuild.query.grammar import Binary, Call, Let, Number, Pattern, SetOf, parse

A, B, C = Pattern("//a"), Pattern("//b"), Pattern("//c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("//a", A),
        ("//a/...", Pattern("//a/...")),
        ("'//a:x y'", Pattern("//a:x y")),
        ("//a + //b", Binary("union", A, B)),
        ("//a union //b", Binary("union", A, B)),
        ("//a ^ //b", Binary("intersect", A, B)),
        ("//a - //b", Binary("except", A, B)),
        ("//a-b", Pattern("//a-b")),
        ("//a - //b + //c", Binary("union", Binary("except", A, B), C)),
        ("//a + //b ^ //c", Binary("intersect", Binary("union", A, B), C)),
        ("//a + (//b ^ //c)", Binary("union", A, Binary("intersect", B, C))),
        ("set(//a //b)", SetOf(("//a", "//b"))),
        ("set()", SetOf(())),
        ("deps(//a)", Call("deps", (A,))),
        ("deps(//a, 1)", Call("deps", (A, Number(1)))),
        ("rdeps(//..., //a, 2)", Call("rdeps", (Pattern("//..."), A, Number(2)))),
        ('kind("quantize rule", //...)', Call("kind", (Pattern("quantize rule"), Pattern("//...")))),
        ("let x = //a in $x + //b", Let("x", A, Binary("union", Pattern("$x"), B))),
        ("deps", Pattern("deps")),
        (
            "let v = deps(//a) in $v except //b",
            Let("v", Call("deps", (A,)), Binary("except", Pattern("$v"), B)),
        ),
        ("\n //a\n+\n//b ", Binary("union", A, B)),
        ("'in'", Pattern("in")),
        (":all", Pattern(":all")),
        ("@repo//a", Pattern("@repo//a")),
    ],
)
def test_parse(text: str, expected: object) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the query ends where an expression should follow"),
        ("deps(//a", "the query ends where `,` or `)` should follow"),
        ("//a //b", "`//b` is left over at the end of the query"),
        ("//a +", "the query ends where an expression should follow"),
        ("+ //a", "an expression is missing before `+`"),
        ("deps(//a;//b)", "`;` cannot stand here in a query"),
        ("'//a", "a quote is not closed in the query"),
        ("let x //a in $x", "`=` is missing before `//a`"),
        ("set(//a, //b)", "`,` cannot stand in `set(...)`"),
        ("deps(//a) in //b", "`in` is left over at the end of the query"),
        ("*", "`*` cannot stand here in a query"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.message == message


def test_error_points_at_the_place() -> None:
    with pytest.raises(UsageError) as caught:
        parse("deps(//a) ; //b")
    assert caught.value.notes == ("deps(//a) ; //b", "          ^")

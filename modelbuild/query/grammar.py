"""The grammar of Bazel's query language, and the expressions it is parsed to.

    expr ::= word | let name = expr in expr | (expr) | expr op expr | set(word*) | function(args)
    op   ::= + union | ^ intersect | - except          all of one precedence, from the left

A word is unquoted text of letters, digits and `*/@.-_:$~[]` that starts with neither `-` nor `*`, or any
text in quotes. Reference: https://bazel.build/query/language
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelbuild.errors import UsageError

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>"[^"]*"|'[^']*')
      | (?P<punctuation>[(),=+^-])
      | (?P<word>[A-Za-z0-9_/@.:$~\[\]][A-Za-z0-9_/@.:$~\[\]*-]*)
    )""",
    re.VERBOSE,
)
_OPERATORS = {"+": "union", "^": "intersect", "-": "except"}
_OPERATOR_NAMES = frozenset(_OPERATORS.values())
_RESERVED = _OPERATOR_NAMES | {"let", "in", "set"}


@dataclass(frozen=True, slots=True)
class Pattern:
    """A target pattern or a variable (`$x`)."""

    text: str


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number, such as a depth."""

    value: int


@dataclass(frozen=True, slots=True)
class SetOf:
    """`set(a b c)`."""

    patterns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Binary:
    """`left operator right`; operator is `union`, `intersect` or `except`."""

    operator: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Let:
    """`let name = value in body`."""

    name: str
    value: Expression
    body: Expression


@dataclass(frozen=True, slots=True)
class Call:
    """`function(arguments)`."""

    function: str
    arguments: tuple[Expression, ...]


Expression = Pattern | Number | SetOf | Binary | Let | Call


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(text: str) -> Expression:
    """Parse a query. Raises UsageError with a caret at the place that is wrong."""
    parser = _Parser(text, list(_tokens(text)))
    expression = parser.expression()
    parser.expect_end()
    return expression


def query_error(text: str, at: int, message: str, hint: str | None = None) -> UsageError:
    """An error about place `at` of query `text`."""
    line = text[:at].count("\n")
    start = text.rfind("\n", 0, at) + 1
    shown = text.split("\n")[line]
    notes = (shown, " " * (at - start) + "^")
    return UsageError(message, notes=notes, hint=hint)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            if text[place] in "'\"":
                raise query_error(text, place, "a quote is not closed in the query")
            raise query_error(
                text, place, f"`{text[place]}` cannot stand here in a query", "put a word like this in quotes"
            )
        kind = match.lastgroup or ""
        token = match.group(kind)
        start = match.start(kind)
        if kind == "quoted":
            yield _Token("word", token[1:-1], start)
        elif kind == "word" and token in _RESERVED:
            yield _Token("keyword", token, start)
        else:
            yield _Token(kind, token, start)
        at = match.end()


class _Parser:
    def __init__(self, text: str, tokens: Sequence[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._at = 0

    def expression(self) -> Expression:
        left = self._primary()
        while (operator := self._operator()) is not None:
            left = Binary(operator, left, self._primary())
        return left

    def expect_end(self) -> None:
        token = self._peek()
        if token is not None:
            raise query_error(self._text, token.at, f"`{token.text}` is left over at the end of the query")

    def _primary(self) -> Expression:
        token = self._next("an expression")
        if token.kind == "punctuation" and token.text == "(":
            inner = self.expression()
            self._expect(")")
            return inner
        if token.kind == "keyword" and token.text == "let":
            name = self._word("a variable name").text
            self._expect("=")
            value = self.expression()
            self._expect("in")
            return Let(name, value, self.expression())
        if token.kind == "keyword" and token.text == "set":
            return self._set()
        if token.kind != "word":
            raise query_error(self._text, token.at, f"an expression is missing before `{token.text}`")
        following = self._peek()
        if following is not None and following.text == "(" and following.kind == "punctuation":
            return self._call(token)
        return Pattern(token.text)

    def _set(self) -> Expression:
        self._expect("(")
        words = []
        while (token := self._next("`)`")).text != ")" or token.kind == "word":
            if token.kind == "punctuation":
                raise query_error(self._text, token.at, f"`{token.text}` cannot stand in `set(...)`")
            words.append(token.text)
        return SetOf(tuple(words))

    def _call(self, name: _Token) -> Expression:
        self._expect("(")
        arguments: list[Expression] = []
        following = self._peek()
        if following is not None and following.text == ")" and following.kind == "punctuation":
            self._at += 1
            return Call(name.text, ())
        while True:
            arguments.append(self._argument())
            token = self._next("`,` or `)`")
            if token.kind == "punctuation" and token.text == ")":
                return Call(name.text, tuple(arguments))
            if token.kind != "punctuation" or token.text != ",":
                raise query_error(self._text, token.at, f"`,` or `)` is missing before `{token.text}`")

    def _argument(self) -> Expression:
        token = self._peek()
        if token is not None and token.kind == "word" and token.text.isdecimal():
            self._at += 1
            return Number(int(token.text))
        return self.expression()

    def _operator(self) -> str | None:
        token = self._peek()
        if token is None:
            return None
        operator = None
        if token.kind == "punctuation":
            operator = _OPERATORS.get(token.text)
        elif token.kind == "keyword" and token.text in _OPERATOR_NAMES:
            operator = token.text
        if operator is not None:
            self._at += 1
        return operator

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self, wanted: str) -> _Token:
        token = self._peek()
        if token is None:
            raise query_error(self._text, len(self._text), f"the query ends where {wanted} should follow")
        self._at += 1
        return token

    def _word(self, wanted: str) -> _Token:
        token = self._next(wanted)
        if token.kind != "word":
            raise query_error(self._text, token.at, f"{wanted} is missing before `{token.text}`")
        return token

    def _expect(self, text: str) -> None:
        token = self._next(f"`{text}`")
        if token.text != text or token.kind == "word":
            raise query_error(self._text, token.at, f"`{text}` is missing before `{token.text}`")

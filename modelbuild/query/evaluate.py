"""Answers a query expression over a QueryGraph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from modelbuild.errors import UsageError
from modelbuild.label import Label
from modelbuild.loading.suggestion import did_you_mean
from modelbuild.query.functions import FUNCTIONS, Function, Labels
from modelbuild.query.grammar import Binary, Call, Expression, Let, Number, Pattern, SetOf
from modelbuild.query.graph import QueryGraph


def evaluate(expression: Expression, graph: QueryGraph) -> list[Label]:
    """The labels that `expression` stands for: sorted, except a path of `somepath`, which stays in order.

    Raises UsageError for an unknown function, variable or argument, LoadError for a pattern.
    """
    found = _evaluate(expression, graph, {})
    if isinstance(expression, Call) and expression.function == "somepath":
        return list(found)
    return sorted(found)


def target_patterns(expression: Expression) -> Iterator[str]:
    """Every target pattern that `expression` names: what has to be loaded to answer it.

    Raises UsageError for an unknown function or a wrong number of arguments.
    """
    match expression:
        case Pattern(text):
            if not text.startswith("$"):
                yield text
        case SetOf(words):
            yield from (word for word in words if not word.startswith("$"))
        case Binary(_, left, right):
            yield from target_patterns(left)
            yield from target_patterns(right)
        case Let(_, value, body):
            yield from target_patterns(value)
            yield from target_patterns(body)
        case Call(name, arguments):
            function = _function(expression)
            if name == "allrdeps":
                yield "//..."
            for parameter, argument in zip(function.parameters, arguments, strict=False):
                if parameter == "expression":
                    yield from target_patterns(argument)
        case Number(value):
            raise UsageError(f"`{value}` stands where the query needs targets")


def needs_siblings(expression: Expression) -> bool:
    """Whether the answer depends on targets of the same packages that nothing named leads to."""
    match expression:
        case Call(name, arguments):
            own = name in ("siblings", "same_pkg_direct_rdeps", "buildfiles")
            return own or any(needs_siblings(argument) for argument in arguments)
        case Binary(_, left, right) | Let(_, left, right):
            return needs_siblings(left) or needs_siblings(right)
        case _:
            return False


def _function(call: Call) -> Function:
    function = FUNCTIONS.get(call.function)
    if function is None:
        hint = did_you_mean(call.function, FUNCTIONS) or f"functions are {', '.join(FUNCTIONS)}"
        raise UsageError(f"the query language has no function `{call.function}`", hint=hint)
    if not function.required <= len(call.arguments) <= len(function.parameters):
        raise UsageError(
            f"`{call.function}` was given {len(call.arguments)} arguments",
            hint=f"it is used as `{function.usage(call.function)}`",
        )
    return function


def _evaluate(expression: Expression, graph: QueryGraph, variables: Mapping[str, Labels]) -> Labels:
    match expression:
        case Pattern(text):
            return _match(text, graph, variables)
        case SetOf(words):
            return {label: None for word in words for label in _match(word, graph, variables)}
        case Let(name, value, body):
            return _evaluate(body, graph, {**variables, name: _evaluate(value, graph, variables)})
        case Binary(operator, left, right):
            first, second = _evaluate(left, graph, variables), _evaluate(right, graph, variables)
            if operator == "union":
                return first | second
            return {label: None for label in first if (label in second) == (operator == "intersect")}
        case Call(_, arguments):
            function = _function(expression)
            values = [
                _argument(expression, parameter, argument, graph, variables)
                for parameter, argument in zip(function.parameters, arguments, strict=False)
            ]
            return function.call(graph, *values)
        case Number(value):
            raise UsageError(f"`{value}` stands where the query needs targets")


def _match(text: str, graph: QueryGraph, variables: Mapping[str, Labels]) -> Labels:
    if not text.startswith("$"):
        return dict.fromkeys(graph.match(text))
    if text[1:] not in variables:
        raise UsageError(f"the query uses `{text}`, which no `let` defines")
    return variables[text[1:]]


def _argument(
    call: Call, parameter: str, argument: Expression, graph: QueryGraph, variables: Mapping[str, Labels]
) -> Labels | str | int:
    if parameter == "expression":
        return _evaluate(argument, graph, variables)
    if parameter == "number":
        if isinstance(argument, Number):
            return argument.value
        raise UsageError(
            f"`{call.function}` needs a whole number as its last argument",
            hint=f"it is used as `{FUNCTIONS[call.function].usage(call.function)}`",
        )
    if isinstance(argument, Pattern):
        return argument.text
    if isinstance(argument, Number):
        return str(argument.value)
    raise UsageError(
        f"`{call.function}` needs a word where an expression stands",
        hint=f"it is used as `{FUNCTIONS[call.function].usage(call.function)}`",
    )

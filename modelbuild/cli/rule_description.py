"""RuleDescription: a rule in the words of BUILD files, read from its pydantic model and docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from modelbuild.attribute import Dep, File, Files
from modelbuild.provider import Provider
from modelbuild.rule import COMMON_ATTRIBUTES, Rule, rule_name
from modelbuild.rules import BUILTIN_RULES

_CONSTRAINTS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


@dataclass(frozen=True, slots=True)
class AttributeDescription:
    """One attribute. default: as BUILD files write it; None when the attribute must be given."""

    name: str
    type: str
    default: str | None
    text: str


@dataclass(frozen=True, slots=True)
class RuleDescription:
    """A rule. summary: the first sentence; text: the rest; example: the BUILD lines in its docstring."""

    name: str
    summary: str
    text: str
    example: str
    determinism: str
    is_test: bool
    attributes: tuple[AttributeDescription, ...]
    common_attributes: tuple[AttributeDescription, ...]


def builtin_rule(name: str) -> type[Rule]:
    """The class of a built-in rule."""
    module, _, attribute = BUILTIN_RULES[name].partition(":")
    rule: type[Rule] = getattr(importlib.import_module(module), attribute)
    return rule


def describe(rule: type[Rule], name: str = "") -> RuleDescription:
    """Read a rule class."""
    summary, text, example = _split_docstring(inspect.cleandoc(rule.__doc__ or ""))
    documented = _field_docstrings(rule)
    attributes = {
        field: AttributeDescription(field, _type_of(info), _default(info), _text(info, documented.get(field)))
        for field, info in rule.model_fields.items()
    }
    own = sorted(
        (a for a in attributes.values() if a.name not in COMMON_ATTRIBUTES),
        key=lambda a: a.default is not None,
    )
    return RuleDescription(
        name=name or rule_name(rule),
        summary=summary,
        text=text,
        example=example,
        determinism=rule.determinism,
        is_test=rule.is_test,
        attributes=tuple(own),
        common_attributes=tuple(a for a in attributes.values() if a.name in COMMON_ATTRIBUTES),
    )


def type_words(annotation: Any, *, plural: bool = False) -> str:
    """`list[Dep[ModelInfo]] | None` -> `list of labels of ModelInfo`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    s = "s" if plural else ""
    if origin is Annotated:
        return type_words(arguments[0], plural=plural)
    if origin in (Union, types.UnionType):
        members = [a for a in arguments if a is not type(None)]
        return " or ".join(type_words(a, plural=plural) for a in members)
    if origin is Literal:
        return "one of " + ", ".join(_starlark(a) for a in arguments)
    if annotation is Dep or origin is Dep:
        provider = arguments[0] if arguments else Provider
        return f"label{s}" if provider is Provider else f"label{s} of {provider.__name__}"
    if origin in (list, tuple, set, frozenset):
        members = [a for a in arguments if a is not Ellipsis]
        return f"list{s} of {type_words(members[0], plural=True)}" if members else f"list{s}"
    if origin in (dict, Mapping):
        key, value = (type_words(a, plural=True) for a in arguments)
        return f"dictionar{'ies' if plural else 'y'} of {key} to {value}"
    names: dict[Any, str] = {
        bool: f"boolean{s}",
        int: f"integer{s}",
        float: f"number{s}",
        str: f"string{s}",
        Files: f"label{s} of files",
        File: f"label{s} of one file",
        dict: f"dictionar{'ies' if plural else 'y'}",
        list: f"list{s}",
        Any: "any values" if plural else "any value",
        object: "any values" if plural else "any value",
    }
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _type_of(info: FieldInfo) -> str:
    words = type_words(info.annotation)
    limits = [
        f"{text} {getattr(item, key)}"
        for item in info.metadata
        for key, text in _CONSTRAINTS.items()
        if getattr(item, key, None) is not None
    ]
    return ", ".join([words, *limits])


def _default(info: FieldInfo) -> str | None:
    if info.is_required():
        return None
    return _starlark(info.get_default(call_default_factory=True, validated_data={}))


def _starlark(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_starlark, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_starlark(k)}: {_starlark(v)}" for k, v in value.items()) + "}"
    return repr(value)


def _text(info: FieldInfo, docstring: str | None) -> str:
    return " ".join((info.description or docstring or "").split())


def _split_docstring(text: str) -> tuple[str, str, str]:
    """First paragraph; the other prose; the indented blocks, which are BUILD code."""
    paragraphs = text.split("\n\n") if text else [""]
    prose: list[str] = []
    code: list[str] = []
    for paragraph in paragraphs[1:]:
        if paragraph.startswith("    "):
            code.append(textwrap.dedent(paragraph).rstrip())
        else:
            prose.append(paragraph.strip())
    return " ".join(paragraphs[0].split()), "\n\n".join(prose), "\n\n".join(code)


def _field_docstrings(rule: type[Rule]) -> dict[str, str]:
    """Attribute -> the string literal below it in the class body, base classes included."""
    found: dict[str, str] = {}
    for base in reversed(rule.__mro__):
        if not (isinstance(base, type) and issubclass(base, Rule)):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
                and isinstance(following.value.value, str)
            ):
                found[statement.target.id] = inspect.cleandoc(following.value.value)
    return found | {name: text for name, text in _COMMON_TEXT.items() if name not in found}


_COMMON_TEXT = {
    "name": "The name of the target, unique in its package.",
    "visibility": "Who may depend on it: `//visibility:public`, `//visibility:private`, "
    "`//pkg:__pkg__`, `//pkg:__subpackages__`.",
    "tags": "Words to select targets by; `manual` keeps it out of `//...`.",
    "testonly": "Whether only tests and other `testonly` targets may depend on it.",
    "deprecation": "A warning shown to those who depend on it.",
    "target_compatible_with": "Constraint values that the target platform must have.",
}

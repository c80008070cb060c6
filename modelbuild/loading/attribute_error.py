"""What pydantic says about attributes, in the words of this project and at the line of the attribute."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from modelbuild.errors import LoadError, Location
from modelbuild.loading.source_file import place_in_call, source_line
from modelbuild.loading.suggestion import closest, did_you_mean
from modelbuild.rule import Rule, attribute_types

_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "True or False",
    "list_type": "a list",
    "dict_type": "a dictionary",
    "tuple_type": "a list",
    "mapping_type": "a dictionary",
    "none_required": "None",
    "model_type": "a dictionary",
    "model_attributes_type": "a dictionary",
}


def attribute_errors(
    error: ValidationError, rule: str, rule_class: type[Rule], name: str, location: Location, root: str
) -> list[LoadError]:
    """One LoadError for each attribute that is wrong, placed where it is written."""
    found: dict[str, LoadError] = {}
    for detail in error.errors(include_url=False):
        attribute = str(detail["loc"][0]) if detail["loc"] else ""
        if attribute in found:
            continue
        message, hint = _explain(dict(detail), rule, rule_class, attribute)
        where = location
        if detail["type"] != "missing" and attribute:
            where = place_in_call(root, location, rf"(?<![\w\"']){re.escape(attribute)}(?=\s*=(?!=))")
        notes = (f"in target `{name}`, declared at {location}",) if where != location else ()
        found[attribute] = LoadError(
            message, location=where, notes=notes, hint=hint, source_line=source_line(root, where)
        )
    unknown = [name for name in found if name not in rule_class.model_fields]
    for mistyped in unknown:  # a mistyped attribute explains the missing one
        for meant in closest(mistyped, [other for other in found if other not in unknown]):
            if found[meant].location == location:
                del found[meant]
    return sorted(
        found.values(), key=lambda e: (e.location.line, e.location.column) if e.location else (0, 0)
    )


def _explain(
    detail: dict[str, Any], rule: str, rule_class: type[Rule], attribute: str
) -> tuple[str, str | None]:
    kind = detail["type"]
    shown = f"`{attribute}{_path(detail['loc'][1:])}`"
    if kind == "extra_forbidden" and len(detail["loc"]) == 1:
        hint = did_you_mean(attribute, attribute_types(rule_class))
        return f"`{rule}` has no attribute `{attribute}`", hint or f"`modelbuild help rule {rule}` lists them"
    if kind == "extra_forbidden":
        return f"{shown} is unknown", None
    if kind == "missing":
        return f"`{rule}` needs attribute {shown}", f"`modelbuild help rule {rule}` describes it"
    value = describe(detail.get("input"))
    if kind in {"literal_error", "enum"}:
        expected = re.sub(r"'([^']*)'", r"`\1`", str(detail["ctx"]["expected"]))
        hint = None
        if isinstance(detail["input"], str):
            hint = did_you_mean(detail["input"], re.findall(r"'([^']*)'", detail["ctx"]["expected"]))
        return f"attribute {shown} must be {expected}, not {value}", hint
    if kind in _EXPECTED:
        return f"attribute {shown} must be {_EXPECTED[kind]}, not {value}", None
    if kind == "too_short":
        return f"attribute {shown} must name at least {detail['ctx']['min_length']}", None
    message = str(detail["msg"])
    if kind in {"value_error", "assertion_error"}:
        message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return f"attribute {shown}: {message}" if attribute else message, None
    if message.startswith("Input should "):
        return f"attribute {shown} must {message.removeprefix('Input should ')}, not {value}", None
    return f"attribute {shown}: {message[:1].lower()}{message[1:]}", None


def _path(loc: tuple[int | str, ...]) -> str:
    """Where inside the attribute, without the parts in which pydantic names its own types."""
    parts = [
        f"[{part}]" if isinstance(part, int) else f'["{part}"]'
        for part in loc
        if isinstance(part, int) or re.fullmatch(r"[\w.-]+", part)
    ]
    return "".join(parts) if all(isinstance(p, int) for p in loc) else "".join(p for p in parts if p)


def describe(value: Any) -> str:
    """A value as a BUILD file would write it, shortened."""
    if isinstance(value, bool) or value is None:
        return f"`{value}`"
    if isinstance(value, str):
        shown = value if len(value) <= 40 else f"{value[:37]}..."
        return f'`"{shown}"`'
    if isinstance(value, (int, float)):
        return str(value)
    names: dict[type, str] = {list: "list", dict: "dictionary"}
    return f"a {names.get(type(value), type(value).__name__)}"

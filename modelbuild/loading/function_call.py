"""Calls of the functions of a BUILD file that declare no target: their arguments, checked."""

from __future__ import annotations

from typing import Any

from modelbuild.errors import LoadError
from modelbuild.loading.attribute_error import describe
from modelbuild.loading.evaluator import RecordedCall
from modelbuild.loading.suggestion import did_you_mean

_SIGNATURES: dict[str, dict[str, type]] = {
    "exports_files": {"srcs": list, "visibility": list, "licenses": list},
    "licenses": {"license_strings": list},
    "package": {
        "default_visibility": list,
        "default_testonly": bool,
        "default_deprecation": str,
        "default_compatible_with": list,
        "default_restricted_to": list,
        "features": list,
        "licenses": list,
    },
    "package_group": {"name": str, "packages": list, "includes": list},
}
_REQUIRED = {"exports_files": "srcs", "licenses": "license_strings", "package_group": "name"}
_TYPE_WORDS = {list: "a list", bool: "True or False", str: "a string"}


def arguments_of(call: RecordedCall) -> dict[str, Any]:
    """Argument name -> value, of the declared type or None. Raises LoadError without a place."""
    types = _SIGNATURES[call.rule]
    if call.rule == "package" and call.positional:
        raise LoadError("`package` takes keyword arguments only", hint='write `default_visibility = ["..."]`')
    if len(call.positional) > len(types):
        raise LoadError(f"`{call.rule}` takes at most {len(types)} arguments")
    arguments = dict(zip(types, call.positional, strict=False))
    for name, value in call.attributes.items():
        if name not in types:
            raise LoadError(f"`{call.rule}` has no argument `{name}`", hint=did_you_mean(name, types))
        if name in arguments:
            raise LoadError(f"argument `{name}` of `{call.rule}` is given twice")
        arguments[name] = value
    required = _REQUIRED.get(call.rule)
    if required and arguments.get(required) is None:
        raise LoadError(f"`{call.rule}` needs argument `{required}`")
    for name, value in arguments.items():
        if types[name] is bool and type(value) is int and value in {0, 1}:
            arguments[name] = bool(value)  # as Bazel takes them
        elif value is not None and not isinstance(value, types[name]):
            expected = _TYPE_WORDS[types[name]]
            raise LoadError(f"argument `{name}` of `{call.rule}` must be {expected}, not {describe(value)}")
    return arguments

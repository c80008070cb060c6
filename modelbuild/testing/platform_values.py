"""The constraint values of the repository `@platforms`, read from its BUILD files as a build reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label
from modelbuild.loading.repository import repository_root
from modelbuild.loading.source_file import BUILD_FILE
from modelbuild.loading.starlark import Interpreter, RuleCall
from modelbuild.loading.suggestion import did_you_mean
from modelbuild.platform import ConstraintSettingInfo, ConstraintValueInfo

REPOSITORY = "platforms"
_RECORDED = ("package", "alias", "constraint_setting", "constraint_value", "host_platform")
_CPU_SECONDS = 10.0


def platform_value(label: Label) -> ConstraintValueInfo:
    """The value that a label of `@platforms` means. Raises LoadError when there is none."""
    values = _values(label.package)
    if label not in values:
        raise LoadError(
            f"there is no constraint value `{label}`",
            hint=did_you_mean(label.name, [each.name for each in values]),
        )
    return values[label]


@cache
def _values(package: str) -> Mapping[Label, ConstraintValueInfo]:
    """Every value of one package, aliases included; empty for a package that is not there."""
    path = Path(repository_root(REPOSITORY), package, BUILD_FILE)
    if not os.path.isfile(path):
        return {}
    calls: list[RuleCall] = []
    interpreter = Interpreter({}, _RECORDED, calls.append, _ignore, _CPU_SECONDS)
    interpreter.build_file(str(path), path.read_text(), _no_load)
    values: dict[Label, ConstraintValueInfo] = {}
    for call in calls:
        if call.rule == "constraint_value":
            label = Label(REPOSITORY, package, call.attributes["name"])
            setting = parse_label(call.attributes["constraint_setting"], package, REPOSITORY)
            values[label] = ConstraintValueInfo(label, ConstraintSettingInfo(setting))
    for call in calls:
        if call.rule == "alias":
            actual = parse_label(call.attributes["actual"], package, REPOSITORY)
            values[Label(REPOSITORY, package, call.attributes["name"])] = values[actual]
    return values


def _ignore(_: str) -> None:
    """Nothing is printed."""


def _no_load(label: str, _: Sequence[str]) -> NoReturn:
    raise LoadError(f"`@{REPOSITORY}` loads `{label}`")

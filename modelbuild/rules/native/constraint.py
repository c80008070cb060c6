"""constraint_setting, constraint_value and config_setting: what platforms differ in, and conditions on it."""

from __future__ import annotations

from collections.abc import Sequence

from modelbuild.analysis.context import Context
from modelbuild.attribute import Dep
from modelbuild.label import Label, parse_label
from modelbuild.platform import ConfigSettingInfo, ConstraintSettingInfo, ConstraintValueInfo
from modelbuild.provider import DefaultInfo, Provider
from modelbuild.rules.native.native_rule import NativeRule


class ConstraintSetting(NativeRule):
    """A property that platforms differ in, as in Bazel.

    constraint_setting(name = "accelerator", default_constraint_value = ":no_accelerator")
    """

    default_constraint_value: str = ""
    """The value of platforms that state none: a `constraint_value` of this package."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """The default is only named: the value itself depends on the setting."""
        default: Label | None = None
        if self.default_constraint_value:
            default = parse_label(self.default_constraint_value, ctx.label.package, ctx.label.repository)
            if default.package != ctx.label.package or default.repository != ctx.label.repository:
                ctx.fail(
                    f"default_constraint_value `{default}` is in another package",
                    hint="as in Bazel, the default is a value of the setting's own package",
                )
        return [DefaultInfo(), ConstraintSettingInfo(ctx.label, default)]


class ConstraintValue(NativeRule):
    """One value of a constraint_setting, as in Bazel; a `select` may name it as a condition.

    constraint_value(name = "npu", constraint_setting = ":accelerator")
    """

    constraint_setting: Dep[ConstraintSettingInfo]
    """The property that this is a value of."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """A condition that holds on platforms with this value."""
        value = ConstraintValueInfo(ctx.label, self.constraint_setting.info)
        return [DefaultInfo(), value, ConfigSettingInfo((value,))]


class ConfigSetting(NativeRule):
    """A condition for `select`: holds when all that it states does, as in Bazel.

    config_setting(name = "small_arm", constraint_values = ["@platforms//cpu:aarch64", ":small"])
    """

    constraint_values: list[Dep[ConstraintValueInfo]] = []
    """Values that the target platform has."""
    define_values: dict[str, str] = {}
    """Variables that `--define NAME=VALUE` gives."""
    values: dict[str, str] = {}
    """As in Bazel; `{"define": "NAME=VALUE"}` is known."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Check that the condition can hold and asks for something."""
        defines = dict(self.define_values)
        for flag, text in self.values.items():
            name, equals, value = text.partition("=")
            if flag != "define" or not equals:
                ctx.fail(
                    f"`values` names `{flag}`, which is no flag that modelbuild has conditions on",
                    hint='known: `constraint_values`, `define_values`, `values = {"define": "NAME=VALUE"}`',
                )
            if defines.setdefault(name, value) != value:
                ctx.fail(f"`{name}` is to be `{defines[name]}` and `{value}`, which never both hold")
        found = tuple(value.info for value in self.constraint_values)
        if not found and not defines:
            ctx.fail("the condition asks for nothing", hint="give `constraint_values` or `define_values`")
        by_setting: dict[Label, ConstraintValueInfo] = {}
        for constraint in found:
            other = by_setting.setdefault(constraint.setting.label, constraint)
            if other.label != constraint.label:
                ctx.fail(
                    f"`{other.label}` and `{constraint.label}` are values of one setting and never both hold"
                )
        return [DefaultInfo(), ConfigSettingInfo(found, tuple(sorted(defines.items())))]

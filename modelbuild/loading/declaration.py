"""From the calls recorded in a BUILD file to a checked Package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, reduce
from operator import or_
from typing import Any

from pydantic import ValidationError

from modelbuild.errors import LoadError, Location, ModelbuildError
from modelbuild.kept_errors import combined
from modelbuild.label import Label, parse_label
from modelbuild.loading.attribute_error import attribute_errors, describe
from modelbuild.loading.build_file import RECORDED_FUNCTIONS
from modelbuild.loading.dependencies import PLAIN_ATTRIBUTES, LoadingContext, dependencies_of
from modelbuild.loading.evaluator import EvaluatedPackage, RecordedCall
from modelbuild.loading.function_call import arguments_of
from modelbuild.loading.name_conflict import name_conflicts
from modelbuild.loading.package import Package, Target
from modelbuild.loading.rule_file import RuleClasses
from modelbuild.loading.select import is_configurable, selects, variants
from modelbuild.loading.source_file import BUILD_FILE, place_in_call, source_line, str_path
from modelbuild.loading.visibility import (
    PRIVATE,
    PUBLIC,
    PackageGroup,
    Visibility,
    parse_package_pattern,
    parse_visibility,
)
from modelbuild.rule import Rule


class PackageDeclaration:
    """Turns one EvaluatedPackage into a Package; used once.

    crosses: the subpackage, if any, that a name with slashes reaches into.
    """

    def __init__(
        self,
        evaluated: EvaluatedPackage,
        root: str,
        classes: RuleClasses,
        crosses: Callable[[str, str, str], str | None],
    ) -> None:
        self._evaluated = evaluated
        self._root = root
        self._classes = classes
        self._crosses = crosses
        self._repository = evaluated.repository
        self._package = evaluated.package
        self._context = LoadingContext(evaluated.package, evaluated.repository)
        self._path = str_path(Label(self._repository, self._package, BUILD_FILE))
        self._errors: list[ModelbuildError] = []
        self._targets: dict[str, Target] = {}
        self._generated: dict[str, str] = {}
        self._exported: dict[str, Visibility] = {BUILD_FILE: (PUBLIC,)}
        self._groups: dict[str, PackageGroup] = {}
        self._group_places: dict[str, Location] = {}
        self._default_visibility: Visibility = (PRIVATE,)
        self._default_testonly = False
        self._seen_package = False

    def package(self) -> Package:
        """The package. Raises LoadError, for the first mistake, with the others as notes."""
        if self._evaluated.error is not None:
            raise self._shown(self._evaluated.error)
        try:
            parse_label(f"//{self._package}:x")
        except LoadError as error:
            raise LoadError(
                f"the directory of `{self._path}` cannot be a package", notes=error.notes
            ) from None
        for file, symbols in self._evaluated.rule_files:
            try:
                self._classes.check(file, symbols)
            except LoadError as error:
                name = re.escape(file.rpartition(":")[2])
                where = place_in_call(
                    self._root, Location(self._path, 1), rf"(?<=[\"'])[^\"']*{name}(?=[\"'])"
                )
                raise self._shown(error.located(where)) from error.__cause__
        calls = sorted(self._evaluated.calls, key=lambda call: call.rule != "package")
        for call in calls:
            location = Location(*call.frames[0][:2]) if call.frames else Location(self._path)
            try:
                if call.rule in RECORDED_FUNCTIONS:
                    self._function(call, location)
                else:
                    self._declare(call, location)
            except LoadError as error:
                self._errors.append(self._shown(error.located(location)))
        conflicts = name_conflicts(self._targets, self._generated, self._exported, self._group_places)
        self._errors += map(self._shown, conflicts)
        if self._errors:
            raise combined(self._errors)
        return Package(
            self._repository,
            self._package,
            self._path,
            self._root,
            self._targets,
            self._default_visibility,
            self._exported,
            frozenset(self._implicit()),
            self._generated,
            self._groups,
            self._evaluated.messages,
        )

    def _shown(self, error: ModelbuildError) -> ModelbuildError:
        if error.source_line is None:
            error.source_line = source_line(self._root, error.location)
        return error

    def _function(self, call: RecordedCall, location: Location) -> None:
        arguments = arguments_of(call)
        if call.rule == "package":
            if self._seen_package:
                raise LoadError("`package` is called twice")
            self._seen_package = True
            visibility = arguments.get("default_visibility")
            if visibility is not None:
                self._default_visibility = self._visibility(visibility, "default_visibility")
            self._default_testonly = bool(arguments.get("default_testonly", False))
        elif call.rule == "exports_files":
            visibility = arguments.get("visibility")
            seen_by = (PUBLIC,) if visibility is None else self._visibility(visibility, "visibility")
            for file in arguments["srcs"]:
                label = parse_label(_string(file, "srcs"), self._package, self._repository)
                if (label.repository, label.package) != (self._repository, self._package):
                    raise LoadError(f"`{file}` is not in this package and cannot be exported by it")
                self._check_boundary(label)
                self._exported[label.name] = seen_by
        elif call.rule == "package_group":
            self._group(arguments, location)

    def _visibility(self, value: Any, attribute: str) -> Visibility:
        if not isinstance(value, list) or is_configurable(value):
            raise LoadError(f"attribute `{attribute}` must be a list of labels")
        return parse_visibility(value, self._package, self._repository)

    def _group(self, arguments: Mapping[str, Any], location: Location) -> None:
        name = _string(arguments["name"], "name")
        label = parse_label(f":{name}", self._package, self._repository)
        packages, includes = arguments.get("packages") or [], arguments.get("includes") or []
        if name in self._groups:
            raise LoadError(
                f"target name `{name}` is used twice", notes=(f"first at {self._group_places[name]}",)
            )
        self._group_places[name] = location
        self._groups[name] = PackageGroup(
            label,
            tuple(parse_package_pattern(text, self._repository) for text in packages),
            tuple(parse_label(_string(t, "includes"), self._package, self._repository) for t in includes),
        )

    def _declare(self, call: RecordedCall, location: Location) -> None:
        rule = call.rule.rpartition("%")[2]
        if call.positional:
            raise LoadError(f"`{rule}` takes keyword arguments only", hint='write `name = "..."`')
        attributes = {k: v for k, v in call.attributes.items() if v is not None}
        name = attributes.get("name")
        if name is None:
            raise LoadError(f"`{rule}` needs attribute `name`")
        configurable = [key for key, value in attributes.items() if is_configurable(value)]
        for key in configurable:
            if key in PLAIN_ATTRIBUTES:
                raise LoadError(f"attribute `{key}` cannot hold a `select`")
        label = self._own_label(name)
        rule_class = self._classes.find(call.rule)
        outs = rule_class.declared_outputs(attributes)
        if any(not isinstance(out, str) for out in outs):
            raise LoadError(f"the outputs of `{label}` must be strings, known without a configuration")
        for key in _boolean_fields(rule_class):
            if type(attributes.get(key)) is int and attributes[key] in {0, 1}:
                attributes[key] = bool(attributes[key])  # as Bazel takes them
        try:
            instances = [
                rule_class.model_validate(values, context=self._context)
                for values in (variants(attributes) if configurable else (attributes,))
            ]
        except ValidationError as error:
            self._errors += attribute_errors(error, rule, rule_class, str(label), location, self._root)
            return
        branches: list[dict[Label, None]] = []
        for instance in instances:
            here: dict[Label, None] = {}
            for key, found in dependencies_of(instance).items():
                if len(found) > 1 and len(set(found)) < len(found) and isinstance(attributes.get(key), list):
                    self._duplicate(key, found, label, location)
                here |= dict.fromkeys(found)
            branches.append(here)
        dependencies = reduce(or_, branches)
        always = frozenset.intersection(*map(frozenset, branches))
        conditions: dict[Label, None] = {}
        for key in configurable:
            for select in selects(attributes[key]):
                conditions |= dict.fromkeys(select.conditions(self._package, self._repository))
        outputs = [self._own_label(out.removeprefix(f"//{self._package}:").removeprefix(":")) for out in outs]
        # As in Bazel: a condition that says nothing of who may use it is for everybody.
        visibility = (PUBLIC,) if rule == "config_setting" else self._default_visibility
        if "visibility" in attributes:
            visibility = self._visibility(attributes["visibility"], "visibility")
        target = Target(
            label,
            rule,
            rule_class,
            attributes,
            location,
            tuple(Location(path, line, 0, function) for path, line, function in call.frames[1:]),
            visibility,
            bool(attributes.get("testonly", self._default_testonly or rule_class.is_test)),
            tuple(attributes.get("tags", ())),
            None if configurable else instances[0],
            tuple(dependencies),
            tuple(label for label in dependencies if label not in always),
            tuple(conditions),
            tuple(outputs),
            tuple(parse_label(text) for text in rule_class.toolchain_types(attributes)),
            self._root,
        )
        self._add(target)

    def _duplicate(self, key: str, labels: Sequence[Label], target: Label, location: Location) -> None:
        twice = next(label for label, count in Counter(labels).items() if count > 1)
        where = place_in_call(self._root, location, rf"(?<![\w\"']){key}(?=\s*=(?!=))")
        raise LoadError(f"`{twice}` stands twice in attribute `{key}` of `{target}`", location=where)

    def _own_label(self, name: Any) -> Label:
        text = _string(name, "name")
        if text.startswith(("//", "@")):
            raise LoadError(f"`{text}` is not a target name", hint="a name holds no package")
        try:
            label = parse_label(f":{text}", self._package, self._repository)
        except LoadError as error:
            raise LoadError(f"`{text}` is not a target name", notes=error.notes) from None
        self._check_boundary(label)
        return label

    def _add(self, target: Target) -> None:
        name = target.label.name
        other = self._targets.get(name)
        if other is not None:
            raise LoadError(
                f"target name `{name}` is used twice",
                location=target.location,
                notes=(f"first at {other.place}, by `{other.rule}`",),
            )
        for output in target.outputs:
            if output in target.dependencies:
                raise LoadError(f"`{target.label}` has `{output.name}` as an input and as an output")
        self._targets[name] = target
        for output in target.outputs:
            if output.name == name:  # as in Bazel: the label then means the target
                continue
            maker = self._generated.get(output.name)
            if maker is not None:
                raise LoadError(
                    f"output `{output.name}` is made by two targets, `:{maker}` and `:{name}`",
                    notes=(f"`:{maker}` is declared at {self._targets[maker].place}",),
                )
            self._generated[output.name] = name

    def _implicit(self) -> Iterator[str]:
        for target in self._targets.values():
            for label in target.dependencies:
                if (label.package, label.repository) != (self._package, self._repository):
                    continue
                name = label.name
                if name not in self._targets and name not in self._generated:
                    yield name

    def _check_boundary(self, label: Label) -> None:
        if "/" not in label.name:
            return
        crossed = self._crosses(label.repository, label.package, label.name)
        if crossed is not None:
            raise crossing_error(label, crossed)


def crossing_error(label: Label, crossed: str) -> LoadError:
    """A label that reaches into a subpackage."""
    inner = label.path[len(crossed) + 1 :]
    right = Label(label.repository, crossed, inner)
    return LoadError(f"`{label}` crosses into package `//{crossed}`", hint=f"did you mean `{right}`?")


@cache
def _boolean_fields(rule_class: type[Rule]) -> tuple[str, ...]:
    return tuple(name for name, field in rule_class.model_fields.items() if field.annotation is bool)


def _string(value: Any, attribute: str) -> str:
    if not isinstance(value, str):
        raise LoadError(f"attribute `{attribute}` must be a string, not {describe(value)}")
    if not value:
        raise LoadError(f"attribute `{attribute}` is empty")
    return value

"""Attribute types that a rule's annotations may use besides plain data.

    model: Dep[ModelInfo]           one target that provides ModelInfo
    extra: list[Dep[DatasetInfo]]   several
    script: File                    one source or generated file
    srcs: list[Files]               files of each target

While loading, a label is only parsed; at analysis the same annotation resolves it. Both happen in the
validator below, driven by the AttributeContext that the caller passes to pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar, cast, get_args

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.label import Label, parse_label
from modelbuild.provider import DefaultInfo, Provider

P = TypeVar("P", bound=Provider)
Q = TypeVar("Q", bound=Provider)


class ResolvedTarget(Protocol):
    """What analysis knows of a dependency when a rule asks for it."""

    @property
    def label(self) -> Label:
        """The target itself, aliases followed."""

    @property
    def rule(self) -> str:
        """The name of its rule, or `source file`."""

    @property
    def providers(self) -> Mapping[type[Provider], Provider]:
        """What it provides."""


class AttributeContext(Protocol):
    """Where the labels of one target are parsed and, at analysis, resolved."""

    @property
    def package(self) -> str:
        """The package whose BUILD file declares the target."""

    @property
    def repository(self) -> str:
        """The repository of that package."""

    def resolve(self, label: Label) -> ResolvedTarget | None:
        """The analysed target, or None while loading."""


class UnresolvedDependencyError(RuntimeError):
    """A rule read a dependency while loading: a bug in the rule."""


class Dependency:
    """A label in an attribute and, after analysis, what it leads to. Not a dataclass: pydantic would
    build a schema of its fields before it asks for ours.
    """

    __slots__ = ("label", "target")

    def __init__(self, label: Label, target: ResolvedTarget | None = None) -> None:
        self.label = label
        self.target = target

    @property
    def actual_label(self) -> Label:
        """The target itself, aliases followed. Only inside `analyze`."""
        return self._resolved().label

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.label)!r})"

    def _resolved(self) -> ResolvedTarget:
        if self.target is None:
            raise UnresolvedDependencyError(f"{self.label} is not analysed yet")
        return self.target


class Dep(Dependency, Generic[P]):
    """A dependency on a target that provides P."""

    __slots__ = ("provider",)

    def __init__(
        self, label: Label, target: ResolvedTarget | None, provider: type[Provider] = Provider
    ) -> None:
        super().__init__(label, target)
        self.provider = provider

    @property
    def info(self) -> P:
        """The provider P of the target. Only inside `analyze`."""
        return self._resolved().providers[self.provider]  # type: ignore[return-value]

    @property
    def all_providers(self) -> Mapping[type[Provider], Provider]:
        """Everything the target provides. Only inside `analyze`."""
        return self._resolved().providers

    def get(self, provider: type[Q]) -> Q | None:
        """Another provider of the same target, if it has it. Only inside `analyze`."""
        return self._resolved().providers.get(provider)  # type: ignore[return-value]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse the label; check that the target provides P when it is known."""
        arguments = get_args(source)
        provider: type[Provider] = arguments[0] if arguments else Provider

        def validate(value: object, info: ValidationInfo) -> Dep[Any]:
            label, target = _resolve(value, info)
            if target is not None and provider not in target.providers and provider is not Provider:
                raise ValueError(f"`{label}` is a {target.rule} and provides no {provider.__name__}")
            return Dep(label, target, provider)

        return core_schema.with_info_plain_validator_function(validate)


class Files(Dependency):
    """All default files of a target, or one source file."""

    __slots__ = ()

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The files. Only inside `analyze`."""
        info = self._resolved().providers.get(DefaultInfo)
        return info.files if isinstance(info, DefaultInfo) else ()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse the label."""

        def validate(value: object, info: ValidationInfo) -> Files:
            return Files(*_resolve(value, info))

        return core_schema.with_info_plain_validator_function(validate)


class File(Dependency):
    """Exactly one file: a source file, or a target with one default file."""

    __slots__ = ()

    @property
    def artifact(self) -> Artifact:
        """The file. Only inside `analyze`."""
        info = self._resolved().providers[DefaultInfo]
        assert isinstance(info, DefaultInfo)
        return info.files[0]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Parse the label; check that there is exactly one file when it is known."""

        def validate(value: object, info: ValidationInfo) -> File:
            label, target = _resolve(value, info)
            if target is not None:
                default = target.providers.get(DefaultInfo)
                count = len(default.files) if isinstance(default, DefaultInfo) else 0
                if count != 1:
                    raise ValueError(f"`{label}` gives {count} files where exactly one is needed")
            return File(label, target)

        return core_schema.with_info_plain_validator_function(validate)


def _resolve(value: object, info: ValidationInfo) -> tuple[Label, ResolvedTarget | None]:
    if isinstance(value, Dependency):
        return value.label, value.target
    if not isinstance(value, str):
        raise ValueError(f"a label is a string, not {type(value).__name__}")
    context = cast("AttributeContext", info.context)
    try:
        label = parse_label(value, context.package, context.repository)
    except ModelbuildError as error:
        raise ValueError("; ".join((error.message, *error.notes))) from error
    return label, context.resolve(label)

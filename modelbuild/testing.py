"""For tests of rules, toolchains and modelbuild itself. Nothing here touches a disk or a process, but for
golden files.

    def test_quantize_declares_one_action():
        runner = RuleRunner()
        runner.provide(":student", ModelInfo(...))
        target = runner.analyze(Quantize, name="int4", model=":student", bits=4)
        assert target.action.params["bits"] == 4
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from modelbuild.actions.action import Action
from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.analysis.analyze import GENERATED_FILE, SOURCE_FILE, AnalyzedTarget
from modelbuild.analysis.context import Context
from modelbuild.analysis.rule_call import by_class
from modelbuild.artifact import Artifact
from modelbuild.attribute import ResolvedTarget
from modelbuild.cache.memory import InMemoryActionCache, InMemoryBlobStore
from modelbuild.digest import digest_bytes
from modelbuild.errors import LoadError, Location
from modelbuild.execution.executor import ExecutionContext, PreparedAction
from modelbuild.label import Label, parse_label
from modelbuild.loading.attribute_error import attribute_errors
from modelbuild.loading.declaration import combined
from modelbuild.provider import DefaultInfo, Provider
from modelbuild.rule import Rule, rule_name

__all__ = [
    "FakeExecutor",
    "InMemoryActionCache",
    "InMemoryBlobStore",
    "RuleRunner",
    "RuleTarget",
    "assert_golden",
]

GOLDEN = Path("tests/golden")

P = TypeVar("P", bound=Provider)


@dataclass(frozen=True)
class RuleTarget:
    """What a rule made of its attributes."""

    label: Label
    actions: tuple[Action, ...]
    providers: Mapping[type[Provider], Provider]

    @property
    def action(self) -> Action:
        """The one action. Raises AssertionError when there is another number of them."""
        assert len(self.actions) == 1, [action.mnemonic for action in self.actions]
        return self.actions[0]

    def get(self, provider: type[P]) -> P:
        """A provider. Raises AssertionError when the target does not provide it."""
        found = self.providers.get(provider)
        assert isinstance(found, provider), (
            f"{self.label} provides {sorted(p.__name__ for p in self.providers)}"
        )
        return found


@dataclass
class RuleRunner:
    """Analyses single rules against dependencies that are stated, not built."""

    package: str = "pkg"
    targets: dict[Label, AnalyzedTarget] = field(default_factory=dict)

    def provide(self, label: str, *providers: Provider, rule: str = "fake") -> None:
        """Let `label` be a target that provides `providers`."""
        parsed = parse_label(label, self.package)
        self.targets[parsed] = AnalyzedTarget(parsed, rule, by_class(providers))

    def source(self, label: str) -> Artifact:
        """Let `label` be a source file."""
        parsed = parse_label(label, self.package)
        artifact = Artifact(parsed.path, "source")
        self.targets[parsed] = AnalyzedTarget(parsed, SOURCE_FILE, {DefaultInfo: DefaultInfo((artifact,))})
        return artifact

    def analyze(self, rule: type[Rule], *, name: str = "target", **attributes: Any) -> RuleTarget:
        """Declare and analyse one target; it can be a dependency of the next.

        Raises LoadError for wrong attributes and AnalysisError for what the rule refuses, as a build does.
        """
        label = Label("", self.package, name)
        written = {"name": name, **attributes}
        shown = rule_name(rule)
        try:
            instance = rule.model_validate(written, context=_Attributes(self.package, "", self._resolve))
        except ValidationError as error:
            location = Location(f"{self.package}/BUILD.models", 1)
            raise combined(attribute_errors(error, shown, rule, name, location, "")) from None
        context = Context(label, determinism=rule.determinism)
        providers = by_class(instance.analyze(context))
        self.targets[label] = AnalyzedTarget(label, shown, providers)
        for output in rule.declared_outputs(written):
            file = label.sibling(output)
            made = DefaultInfo((Artifact(file.path, "file"),))
            self.targets[file] = AnalyzedTarget(file, GENERATED_FILE, {DefaultInfo: made})
        return RuleTarget(label, tuple(context.actions), providers)

    def _resolve(self, label: Label) -> ResolvedTarget:
        if label not in self.targets:
            raise LoadError(f"the test provides no `{label}`")
        return self.targets[label]


@dataclass(frozen=True)
class _Attributes:
    package: str
    repository: str
    resolve: Callable[[Label], ResolvedTarget | None]


@dataclass
class FakeExecutor:
    """An Executor that runs nothing: `make` says what each output file holds. Keeps a journal."""

    blobs: InMemoryBlobStore = field(default_factory=InMemoryBlobStore)
    make: Callable[[PreparedAction, str], bytes] = lambda prepared, name: f"{prepared.key} {name}".encode()
    journal: list[str] = field(default_factory=list)

    def execute(self, prepared: PreparedAction, ctx: ExecutionContext) -> ActionResult | None:
        """Every declared output as a file of what `make` says."""
        self.journal.append(str(prepared.action.owner))
        outputs = {}
        for name in prepared.action.outputs:
            data = self.make(prepared, name)
            self.blobs.put_bytes(data)
            outputs[name] = OutputDigest("file", digest_bytes(data))
        return ActionResult(outputs)


def assert_golden(name: str, actual: str, directory: Path = GOLDEN) -> None:
    """Compare `actual` with a committed file; MODELBUILD_UPDATE_GOLDEN=1 rewrites it.

    Raises AssertionError with a diff.
    """
    path = directory / name
    if os.environ.get("MODELBUILD_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(actual)
    expected = path.read_text() if path.exists() else ""
    if actual != expected:
        diff = difflib.unified_diff(
            expected.splitlines(), actual.splitlines(), f"{path} (expected)", "actual", lineterm=""
        )
        raise AssertionError("\n".join(diff))

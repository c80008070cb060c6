"""The rule `artifact_matrix`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from modelbuild.api import (
    DEFAULT_LENGTH,
    AnalysisError,
    Artifact,
    Context,
    Conversion,
    DefaultInfo,
    Dep,
    DeviceBinaryInfo,
    DeviceRunInfo,
    Footprint,
    Label,
    ModelInfo,
    PlatformInfo,
    Provider,
    PythonTool,
    Rule,
    parse_label,
)
from modelbuild.matrix import CandidateInfo, MatrixCell, MatrixInfo
from modelbuild.rules.device.measure import Execution, declare_execution, declare_parity
from modelbuild.rules.device_binary.choice import AUTO, DEFAULT_TYPE, Choice, NoChoice, choose

_EXCLUDABLE = ("artifact", "platform", "format")


class ArtifactMatrix(Rule):
    """Every artifact for every platform: made, sized, run where it can be run, and compared.

    A cell is an artifact, a platform and a format: each of `formats`, or, without `formats`, the first one
    that the artifact names and the platform's toolchains make. What cannot be had is a cell with the reason.
    `modelbuild matrix` builds all cells, goes on where one fails, and shows the table.

        artifact_matrix(
            name = "release",
            artifacts = [":pilot", ":digits"],
            platforms = ["//toolchains/platforms:drone", "//toolchains/platforms:gateway"],
            exclude = [{"artifact": ":digits", "platform": "//toolchains/platforms:drone"}],
        )
    """

    platform_attribute: ClassVar[str] = "platforms"
    split_attributes: ClassVar[frozenset[str]] = frozenset({"artifacts"})

    artifacts: list[Dep[ModelInfo]] = Field(min_length=1)
    """Models, or `release_candidate`s, which are measured as well."""
    platforms: list[Dep[PlatformInfo]] = Field(min_length=1)
    """The devices."""
    formats: list[str] = []
    """One cell for each of these; empty: one cell, in the best format that can be had."""
    exclude: list[dict[str, str]] = []
    """Cells to leave out: each entry names an `artifact`, a `platform`, a `format`, or several of them. A
    format may hold `*`; an entry that excludes nothing is an error."""
    sequence_length: int = Field(default=DEFAULT_LENGTH, ge=1)
    """Tokens of one pass, for runtimes that compile static shapes; the length of the probes."""
    toolchain_type: str = DEFAULT_TYPE
    """What toolchains are registered as."""

    @classmethod
    def toolchain_types(cls, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """The one type."""
        return (str(attributes.get("toolchain_type", DEFAULT_TYPE)),)

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare all cells."""
        platforms = {each.info.label: each for each in self.platforms}
        if len(platforms) < len(self.platforms):
            ctx.fail("`platforms` names a platform twice, by its name and by an alias")
        exclusions = [_Exclusion(ctx, entry) for entry in self.exclude]
        names = _Names([each.label for each in self.artifacts], list(platforms))
        cells = [
            names.put_on(cell)
            for artifact in self.artifacts
            for platform in self.platforms
            for cell in self._cells(ctx, artifact, platform, exclusions, names)
        ]
        for exclusion in exclusions:
            if not exclusion.used:
                ctx.fail(f"`exclude` has an entry that excludes nothing: {exclusion.entry}")
        reports = tuple(cell.report for cell in cells if cell.report)
        binaries = tuple(cell.binary for cell in cells if cell.binary)
        return [DefaultInfo((*binaries, *reports)), MatrixInfo(tuple(cells))]

    def _cells(
        self,
        ctx: Context,
        artifact: Dep[ModelInfo],
        on: Dep[PlatformInfo],
        exclusions: Sequence[_Exclusion],
        names: _Names,
    ) -> Iterator[MatrixCell]:
        """The cells of one artifact on one platform: those that can be made, then those that cannot."""
        label, platform = artifact.label, on.info
        under = ctx.under(artifact, platform)
        devices = {on.label, platform.label}
        if isinstance(under, str):
            if not [each for each in exclusions if each.matches({label}, devices, AUTO)]:
                yield MatrixCell(label, platform.label, reason=under)
            return
        model = under.providers[ModelInfo]
        assert isinstance(model, ModelInfo)
        candidate = under.providers.get(CandidateInfo)
        if not isinstance(candidate, CandidateInfo):
            candidate = CandidateInfo(label, model)
        made = False
        refused: dict[str, NoChoice] = {}
        for format_ in dict.fromkeys(self.formats or candidate.formats or [AUTO]):
            if [each for each in exclusions if each.matches({label, under.label}, devices, format_)]:
                continue
            asked = Conversion(
                model,
                format_,
                platform,
                sequence_length=self.sequence_length,
                calibration=candidate.calibration,
            )
            choice = choose(ctx, parse_label(self.toolchain_type), asked)
            if isinstance(choice, NoChoice):
                refused[format_] = choice
                continue
            folder = names.folder(label, platform.label, choice.format)
            declare = partial(self._cell, ctx, label, candidate, platform, choice, folder)
            try:
                cell = ctx.attempt(declare)
            except AnalysisError as error:  # Of this cell alone: the others are made.
                reason = error.message.removeprefix(f"`{ctx.label}`: ")
                refused[format_] = NoChoice(reason, error.notes, error.hint)
                continue
            made = True
            # A better format that could not be had: the reader of the table wants to know why.
            passed_over = tuple(
                f"{name}: {each.reason}" for name, each in refused.items() if not each.unknown
            )
            yield replace(cell, notes=passed_over)
            if not self.formats:
                return
        if self.formats and (made or len({each.reason for each in refused.values()}) > 1):
            for format_, each in refused.items():
                yield MatrixCell(label, platform.label, format_, reason=each.reason, notes=_told(each))
        elif refused:
            yield _impossible(label, platform, refused)

    def _cell(
        self,
        ctx: Context,
        label: Label,
        candidate: CandidateInfo,
        platform: PlatformInfo,
        choice: Choice,
        folder: str,
    ) -> MatrixCell:
        conversion = replace(choice.conversion, prefix=folder)
        binary = choice.toolchain.convert(ctx, conversion)
        execution: Execution | None = None
        parity: Artifact | None = None
        not_run = choice.toolchain.why_not_run(platform)
        if candidate.probes is None:
            not_run = "nothing is measured: it has no probes"
        elif not not_run:
            run = DeviceRunInfo(choice.toolchain, conversion)
            execution = declare_execution(ctx, run, binary, candidate.probes, folder)
            assert candidate.reference is not None
            parity = declare_parity(
                ctx, execution.logits, candidate.reference, candidate.teacher, candidate.probes, folder
            )
        report = _declare_report(ctx, candidate, platform, choice, binary, execution, parity, not_run, folder)
        return MatrixCell(
            label,
            platform.label,
            choice.format,
            choice.declared_by,
            choice.footprint,
            binary.binary,
            report,
        )


class _Names:
    """What cells are called: by the names of artifact and platform, or their labels where two are alike."""

    def __init__(self, artifacts: Sequence[Label], platforms: Sequence[Label]) -> None:
        self._artifacts = _unique(artifacts)
        self._platforms = _unique(platforms)

    def put_on(self, cell: MatrixCell) -> MatrixCell:
        """The cell with its names."""
        return replace(
            cell,
            artifact_name=self._artifacts[cell.artifact],
            platform_name=self._platforms[cell.platform],
        )

    def folder(self, artifact: Label, platform: Label, format_: str) -> str:
        """Where the outputs of a cell lie, `drone/pilot/gguf-Q4_0/`."""
        parts = (self._platforms[platform], self._artifacts[artifact], format_)
        return "".join(f"{re.sub(r'[^A-Za-z0-9_.+-]+', '-', part).strip('-')}/" for part in parts)


def _unique(labels: Sequence[Label]) -> dict[Label, str]:
    often = Counter(label.name for label in labels)
    return {label: label.name if often[label.name] == 1 else str(label) for label in labels}


def _impossible(label: Label, platform: PlatformInfo, refused: Mapping[str, NoChoice]) -> MatrixCell:
    """One cell for an artifact that can be had in none of its formats."""
    told = [each.reason for each in refused.values() if not each.unknown]
    nothing = f"no toolchain of `{platform.label}` makes {', '.join(f'`{each}`' for each in refused)}"
    reasons = list(dict.fromkeys(told)) or [nothing]
    notes = tuple(
        f"{format_}: {note}" for format_, each in refused.items() for note in (each.reason, *_told(each))
    )
    return MatrixCell(label, platform.label, reason="; ".join(reasons), notes=notes)


def _told(refusal: NoChoice) -> tuple[str, ...]:
    return (*refusal.notes, refusal.hint) if refusal.hint else refusal.notes


def _declare_report(
    ctx: Context,
    candidate: CandidateInfo,
    platform: PlatformInfo,
    choice: Choice,
    binary: DeviceBinaryInfo,
    execution: Execution | None,
    parity: Artifact | None,
    not_run: str,
    folder: str,
) -> Artifact:
    report = ctx.declare_file(f"{folder}cell.json")
    inputs = {"binary": binary.binary}
    if execution and parity:
        inputs |= {"timing": execution.timing, "parity": parity}
    ctx.run(
        tool=PythonTool(Path(__file__).with_name("cell_tool.py")),
        mnemonic="Cell",
        inputs=inputs,
        outputs={"report": report},
        params={
            "artifact": str(candidate.label),
            "platform": str(platform.label),
            "format": choice.format,
            "runtime": binary.runtime,
            "toolchain": str(choice.declared_by),
            "predicted": _predicted(choice.footprint),
            "budget": asdict(platform.budget),
            "runner": platform.runner.kind if platform.runner and not not_run else "none",
            "not_run": not_run,
            "bounds": {name: list(bound) for name, bound in candidate.bounds.items()},
        },
        progress=f"{candidate.label.name} on {platform.label.name}",
    )
    return report


def _predicted(footprint: Footprint) -> dict[str, int]:
    return {
        "disk": footprint.disk,
        "weights": footprint.weights,
        "kv_cache": footprint.kv_cache,
        "runtime": footprint.runtime,
        "ram": footprint.ram,
    }


class _Exclusion:
    """One entry of `exclude`, and whether it excluded anything."""

    def __init__(self, ctx: Context, entry: Mapping[str, str]) -> None:
        self.entry = dict(entry)
        self.used = False
        unknown = [key for key in entry if key not in _EXCLUDABLE]
        if unknown or not entry:
            ctx.fail(f"`exclude` has an entry {self.entry}", hint=f"its keys are {', '.join(_EXCLUDABLE)}")
        place = (ctx.label.package, ctx.label.repository)
        self._labels = {
            key: parse_label(entry[key], *place) for key in ("artifact", "platform") if key in entry
        }
        self._format = entry.get("format", "*")

    def matches(self, artifact: set[Label], platform: set[Label], format_: str) -> bool:
        """Whether the cell is left out. artifact, platform: as they are written and as they are meant."""
        found = (
            ("artifact" not in self._labels or self._labels["artifact"] in artifact)
            and ("platform" not in self._labels or self._labels["platform"] in platform)
            and fnmatchcase(format_, self._format)
        )
        self.used |= found
        return found

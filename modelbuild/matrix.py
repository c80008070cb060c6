"""Artifact matrices: which models are made for which devices, and the evidence for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelbuild.artifact import Artifact
from modelbuild.label import Label
from modelbuild.provider import DatasetInfo, ModelInfo, ProbesInfo, Provider
from modelbuild.runtime_toolchain import Footprint


@dataclass(frozen=True)
class CandidateInfo(Provider):
    """A model that may be released, and what its binaries are measured by.

    formats: those it may be released in, the preferred one first; empty: whatever a toolchain offers.
    reference, teacher: the logits of the model and of its teacher, in torch. bounds: metric -> (`at_least` or
    `at_most`, limit).
    """

    label: Label
    model: ModelInfo
    formats: tuple[str, ...] = ()
    probes: ProbesInfo | None = None
    reference: Artifact | None = None
    teacher: Artifact | None = None
    calibration: DatasetInfo | None = None
    bounds: Mapping[str, tuple[str, float]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class MatrixCell:
    """One artifact for one device. report: JSON of the evidence; None when there is no binary, and `reason`
    says why. artifact_name, platform_name: what tables show, the label where names are not unique.
    """

    artifact: Label
    platform: Label
    format: str = ""
    toolchain: Label | None = None
    footprint: Footprint | None = None
    binary: Artifact | None = None
    report: Artifact | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
    artifact_name: str = ""
    platform_name: str = ""


@dataclass(frozen=True)
class MatrixInfo(Provider):
    """What an `artifact_matrix` provides."""

    cells: tuple[MatrixCell, ...]

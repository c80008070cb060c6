"""Everything a rule or toolchain author may import, and nothing else."""

from modelbuild.actions.action import Determinism, Resources
from modelbuild.analysis.context import Context
from modelbuild.artifact import Artifact
from modelbuild.attribute import Dep, File, Files
from modelbuild.errors import AnalysisError
from modelbuild.label import Label
from modelbuild.provider import (
    DatasetInfo,
    DefaultInfo,
    DeviceBinaryInfo,
    LogitsInfo,
    MetricsInfo,
    ModelInfo,
    Provider,
    RunInfo,
    TestInfo,
    TokenizerInfo,
)
from modelbuild.rule import Rule
from modelbuild.tool import TRANSFORMERS_PRELOAD, PythonTool

__all__ = [
    "TRANSFORMERS_PRELOAD",
    "AnalysisError",
    "Artifact",
    "Context",
    "DatasetInfo",
    "DefaultInfo",
    "Dep",
    "Determinism",
    "DeviceBinaryInfo",
    "File",
    "Files",
    "Label",
    "LogitsInfo",
    "MetricsInfo",
    "ModelInfo",
    "Provider",
    "PythonTool",
    "Resources",
    "Rule",
    "RunInfo",
    "TestInfo",
    "TokenizerInfo",
]

"""Everything a rule or toolchain author may import, and nothing else."""

from modelbuild.actions.action import Determinism, Resources
from modelbuild.analysis.context import Context
from modelbuild.architecture import (
    MODEL_TYPES,
    WeightTensor,
    attention_window,
    complete_architecture,
    kv_cache_bytes,
    longest_row,
    optional_vectors,
    parameter_count,
    shares_heads,
    weight_tensors,
)
from modelbuild.artifact import Artifact
from modelbuild.attribute import Dep, File, Files
from modelbuild.budget import footprint_breakdown, nearest_fitting, over_budget
from modelbuild.byte_size import byte_size
from modelbuild.calibration import declare_calibration
from modelbuild.checkpoint import checkpoint_bytes, is_rounded, row_integers_refusal
from modelbuild.device_lock import device_lock
from modelbuild.errors import AnalysisError
from modelbuild.fixed_pass import FixedPassToolchainInfo, pass_bytes, pass_params, table_bytes
from modelbuild.gguf_layout import (
    gguf_bytes,
    gguf_context_length,
    gguf_header_bytes,
    gguf_refusal,
    tensor_bytes,
    tensor_types,
)
from modelbuild.label import Label, parse_label
from modelbuild.onnx_export import declare_onnx_export
from modelbuild.platform import Budget, ConstraintValueInfo, PlatformInfo, byte_order_refusal
from modelbuild.provider import (
    TEXT_TASKS,
    DatasetInfo,
    DefaultInfo,
    DeviceBinaryInfo,
    LogitsInfo,
    MetricsInfo,
    ModelInfo,
    ProbesInfo,
    Provider,
    ReferenceInfo,
    RunInfo,
    RunnerInfo,
    TestInfo,
    TokenizerInfo,
)
from modelbuild.rule import Rule
from modelbuild.runner import LOCAL, Runner
from modelbuild.runtime_toolchain import (
    DEFAULT_LENGTH,
    Conversion,
    DeviceRunInfo,
    Footprint,
    RuntimeToolchainInfo,
)
from modelbuild.tool import TRANSFORMERS_PRELOAD, Lock, PythonTool
from modelbuild.toolchain import DeclaredToolchainInfo, ToolchainTypeInfo

__all__ = [
    "DEFAULT_LENGTH",
    "LOCAL",
    "MODEL_TYPES",
    "TEXT_TASKS",
    "TRANSFORMERS_PRELOAD",
    "AnalysisError",
    "Artifact",
    "Budget",
    "ConstraintValueInfo",
    "Context",
    "Conversion",
    "DatasetInfo",
    "DeclaredToolchainInfo",
    "DefaultInfo",
    "Dep",
    "Determinism",
    "DeviceBinaryInfo",
    "DeviceRunInfo",
    "File",
    "Files",
    "FixedPassToolchainInfo",
    "Footprint",
    "Label",
    "Lock",
    "LogitsInfo",
    "MetricsInfo",
    "ModelInfo",
    "PlatformInfo",
    "ProbesInfo",
    "Provider",
    "PythonTool",
    "ReferenceInfo",
    "Resources",
    "Rule",
    "RunInfo",
    "Runner",
    "RunnerInfo",
    "RuntimeToolchainInfo",
    "TestInfo",
    "TokenizerInfo",
    "ToolchainTypeInfo",
    "WeightTensor",
    "attention_window",
    "byte_order_refusal",
    "byte_size",
    "checkpoint_bytes",
    "complete_architecture",
    "declare_calibration",
    "declare_onnx_export",
    "device_lock",
    "footprint_breakdown",
    "gguf_bytes",
    "gguf_context_length",
    "gguf_header_bytes",
    "gguf_refusal",
    "is_rounded",
    "kv_cache_bytes",
    "longest_row",
    "nearest_fitting",
    "optional_vectors",
    "over_budget",
    "parameter_count",
    "parse_label",
    "pass_bytes",
    "pass_params",
    "row_integers_refusal",
    "shares_heads",
    "table_bytes",
    "tensor_bytes",
    "tensor_types",
    "weight_tensors",
]

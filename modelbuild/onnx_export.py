"""The ONNX export of a model, which many toolchains start from.

It is an action of its own with nothing of a device, a format or a target in its key: whoever declares it for
the same model shares one run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.actions.action import Resources
from modelbuild.artifact import Artifact
from modelbuild.errors import AnalysisError
from modelbuild.provider import ModelInfo
from modelbuild.tool import TRANSFORMERS_PRELOAD, PythonTool

if TYPE_CHECKING:
    from modelbuild.analysis.context import Context

_TOOL = Path(__file__).parent / "rules" / "onnx" / "export_tool.py"
_DISTRIBUTIONS = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "onnx",
    "onnxscript",
    "onnxruntime",
)


def declare_onnx_export(
    ctx: Context, model: ModelInfo, sequence_length: int = 64, prefix: str = ""
) -> Artifact:
    """Declare the export of `model` in float32: the tree `<prefix>onnx`, which holds `model.onnx`.

    A language model takes `input_ids` int64 (1, sequence_length) and gives `logits` (1, sequence_length,
    vocabulary); a classifier takes `pixel_values` float32 (1, channels, height, width) and gives `logits`
    (1, labels). Opset 18, standard operators, one MatMul for each linear layer; packed integer weights become
    the floats they stand for. From 2 GiB on the weights lie beside it, in `model.onnx.data`. The action
    compares the file with torch and fails when they differ. Raises AnalysisError for a model of another task.
    """
    params: dict[str, object] = {"task": "image_classification"}
    if model.is_text:
        # Both tasks are exported alike; one name, so that they share the action.
        params = {"task": "language_model", "sequence_length": sequence_length}
    elif model.task != "image_classification":
        raise AnalysisError(f"`{ctx.label}`: a model for `{model.task}` cannot be exported to ONNX")
    tree = ctx.declare_tree(f"{prefix}onnx")
    ctx.run(
        tool=PythonTool(_TOOL, _DISTRIBUTIONS, TRANSFORMERS_PRELOAD),
        mnemonic="OnnxExport",
        inputs={"model": model.weights},
        outputs={"onnx": tree},
        params=params,
        resources=Resources(ram=2 << 30),
        progress=f"exporting {ctx.label.name} to ONNX",
    )
    return tree

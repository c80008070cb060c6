"""Calibration rows: what formats that measure activations run a model on before they round it.

An action of its own with nothing of a format or device in its key, shared by every toolchain.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.actions.action import Resources
from modelbuild.artifact import Artifact
from modelbuild.provider import DatasetInfo, ModelInfo
from modelbuild.tool import TRANSFORMERS_PRELOAD, PythonTool

if TYPE_CHECKING:
    from modelbuild.analysis.context import Context

CALIBRATION_SPLIT = "calibration"
_TOOL = Path(__file__).parent / "rules" / "device" / "calibration_tool.py"
_DISTRIBUTIONS = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def declare_calibration(
    ctx: Context,
    model: ModelInfo,
    dataset: DatasetInfo | None,
    format_: str,
    *,
    sequence_length: int = 64,
    rows: int = 128,
    prefix: str = "",
) -> Artifact:
    """Declare the file `<prefix>calibration.npy`.

    It is int64 (n, sequence_length), or float32 (n, channels, height, width). Only the split `calibration` is
    read. Texts follow one another and are cut into rows, so that no row is padded. n is at most `rows`; none
    is an error. Refuses the target when there is no dataset, or one without that split, or one for another
    task; `format_` is named in the reason.
    """
    if dataset is None:
        ctx.fail(
            f"`{format_}` measures activations and needs data for it",
            hint='set `calibration` to a dataset with a split `calibration`: calibration = ":missions"',
        )
    if CALIBRATION_SPLIT not in dataset.splits:
        ctx.fail(
            f"`{format_}` is calibrated on a split `{CALIBRATION_SPLIT}`, which the dataset does not have",
            hint=f"it has {', '.join(f'`{split}`' for split in dataset.splits)}",
        )
    if dataset.task != model.task:
        ctx.fail(f"the calibration data is for `{dataset.task}`, the model for `{model.task}`")
    images = model.task == "image_classification"
    inputs = {"dataset": dataset.directory}
    params: dict[str, object] = {"rows": rows}
    if not images:
        inputs["model"] = model.weights
        params["sequence_length"] = sequence_length
    file = ctx.declare_file(f"{prefix}calibration.npy")
    ctx.run(
        tool=PythonTool(_TOOL, _DISTRIBUTIONS, TRANSFORMERS_PRELOAD),
        mnemonic="Calibration",
        inputs=inputs,
        outputs={"rows": file},
        params=params,
        resources=Resources(ram=1 << 30),
        progress=f"encoding calibration rows for {ctx.label.name}",
    )
    return file

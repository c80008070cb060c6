"""Does what a toolchain declares for a model: every action, each tool in its own environment."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modelbuild.api import (
    Artifact,
    Context,
    Conversion,
    DatasetInfo,
    Label,
    ModelInfo,
    PlatformInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.platform import CPU, OS
from modelbuild.runner import LOCAL
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.request import Request, load_tool
from tests.tiny_text import VOCAB_SIZE
from tests.toolchains.conftest import LockedTools

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "initializer_range": 0.1,
    "tie_word_embeddings": True,
}
VIT: dict[str, Any] = {
    "model_type": "vit",
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 10,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "initializer_range": 0.1,
}
LENGTH = 48
DATA = DatasetInfo(Artifact("data/dataset", "tree"), ("train", "calibration"), "text_generation")
Array = npt.NDArray[Any]


def platform(cpu: str = "x86_64", system: str = "linux") -> PlatformInfo:
    """A device with this CPU and operating system; of x86-64 with Linux, this machine."""
    constraints = {CPU: Label("platforms", "cpu", cpu), OS: Label("platforms", "os", system)}
    local = (cpu, system) == ("x86_64", "linux")
    return PlatformInfo(Label("", "p", cpu), constraints, runner=LOCAL if local else None)


def random_model(directory: Path, architecture: dict[str, Any], tokenizer: Path | None = None) -> ModelInfo:
    """Write a model of random weights to `directory`."""
    torch.manual_seed(1)
    images = architecture["model_type"] == "vit"
    task = ImageClassification() if images else LanguageModel()
    model = task.create(architecture, tokenizer)
    for parameter in model.parameters():
        if (
            parameter.ndim == 1
        ):  # Norms and biases are all ones and zeros at first: some runtimes store them once.
            parameter.data += torch.randn_like(parameter) / 10
    task.save(model, directory, tokenizer)
    kind = "image_classification" if images else "text_generation"
    return ModelInfo(Artifact(directory.name, "tree"), kind, architecture)


def rounded_model(model: Path, info: ModelInfo, directory: Path, **grid: Any) -> ModelInfo:
    """Round the weights of `model` to the nearest, as the rule `quantize` does."""
    name = "image_tool" if info.task == "image_classification" else "tool"
    tool = importlib.import_module(f"modelbuild.rules.quantize.{name}")
    params = {"group_size": 32, "symmetric": True, "observer": "minmax", "embeddings": "rtn", **grid}
    tool.main(Request(params, {"model": model}, {"model": directory}))
    return ModelInfo(
        Artifact(directory.name, "tree"),
        info.task,
        info.architecture,
        f"int{grid['bits']}",
        "compressed-tensors",
        {"scheme": "rtn", **params},
    )


def probes(directory: Path, architecture: dict[str, Any], rows: int = 8) -> Path:
    """Rows to ask a binary, in the layout of modelbuild.toolkit.device_run."""
    rng = np.random.default_rng(5)
    if architecture["model_type"] == "vit":
        size, channels = architecture["image_size"], architecture["num_channels"]
        values: Array = rng.random((rows, channels, size, size), np.float32)
    else:
        values = rng.integers(0, architecture["vocab_size"], (rows, LENGTH))
    directory.mkdir()
    np.save(directory / "inputs.npy", values)
    return directory


def torch_logits(model: Path, info: ModelInfo, asked: Path) -> Array:
    """What torch answers, packed weights dequantized."""
    values = torch.from_numpy(np.load(asked / "inputs.npy"))
    task = ImageClassification() if info.task == "image_classification" else LanguageModel()
    with torch.inference_mode():
        logits: Array = task.load(model)(values).logits.numpy()
    return logits


@dataclass
class Toolchain:
    """A toolchain whose actions are run. files: artifact -> where it lies. made: what equal actions made."""

    locked: LockedTools
    info: RuntimeToolchainInfo
    files: dict[Artifact, Path]
    made: dict[str, dict[str, Path]] = field(default_factory=dict)

    def convert(
        self, model: ModelInfo, format_: str, out: Path, calibration: DatasetInfo | None = None
    ) -> Path:
        """Make the binary in the new folder `out`; of equal actions, the first is run."""
        ctx = Context(Label("", "pkg", out.name))
        made = self.info.convert(
            ctx, Conversion(model, format_, platform(), sequence_length=LENGTH, calibration=calibration)
        )
        out.mkdir()
        for action in ctx.actions:
            inputs = {name.removeprefix("in/"): self.files[each] for name, each in action.inputs.items()}
            outputs = {name.removeprefix("out/"): each for name, each in action.outputs.items()}
            assert isinstance(action.tool, PythonTool)
            key = repr((action.tool.source, sorted(action.params.items()), sorted(inputs.items())))
            if key not in self.made:
                paths = {name: out / Path(each.path).name for name, each in outputs.items()}
                if action.tool.lock is None:
                    _call(action.tool, action.params, inputs, paths)
                else:
                    self.locked.call(action.tool, action.params, inputs, paths)
                self.made[key] = paths
            self.files |= {each: self.made[key][name] for name, each in outputs.items()}
        return self.files[made.binary]

    def ask(self, binary: Path, asked: Path, out: Path, where: PlatformInfo | None = None) -> Array:
        """The logits of the device's runtime."""
        tool = self.info.device_tool(where or platform())
        assert tool is not None
        out.mkdir()
        outputs = {"logits": out / "logits.npy", "timing": out / "timing.json"}
        self.locked.call(tool, {}, {"binary": binary, "probes": asked}, outputs)
        logits: Array = np.load(outputs["logits"])
        return logits


def _call(tool: PythonTool, params: Any, inputs: dict[str, Path], outputs: dict[str, Path]) -> None:
    before = list(sys.path)
    try:
        load_tool(tool.source).main(Request(params, inputs, outputs))
    finally:
        sys.path[:] = before


def size(path: Path) -> int:
    """Bytes of a file, or of every file of a tree."""
    return sum(p.stat().st_size for p in (path.rglob("*") if path.is_dir() else [path]) if p.is_file())


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a tree, by name."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}

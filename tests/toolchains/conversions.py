"""Runs what a toolchain declares for a model, each tool in its own environment, and asks the result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modelbuild.api import (
    Artifact,
    Conversion,
    DeviceBinaryInfo,
    Label,
    ModelInfo,
    PlatformInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.platform import CPU, OS
from modelbuild.rules.quantize import image_tool as quantize_images
from modelbuild.rules.quantize import tool as quantize_text
from modelbuild.runner import LOCAL
from modelbuild.testing import RuleRunner, run_tool
from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.probes import write_probes
from modelbuild.toolkit.request import Request
from tests.locked_tools import LockedTools

Array = npt.NDArray[Any]

LENGTH = 24
"""Tokens of a row."""
LLAMA = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
VIT = {
    "model_type": "vit",
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 10,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TASKS = {"llama": "text_generation", "vit": "image_classification"}


def device(cpu: str, system: str = "linux", *, local: bool = False) -> PlatformInfo:
    """A platform; local: this machine is one."""
    constraints = {CPU: Label("platforms", "cpu", cpu), OS: Label("platforms", "os", system)}
    return PlatformInfo(Label("", "p", cpu), constraints, runner=LOCAL if local else None)


HERE = device("x86_64", local=True)


@dataclass(frozen=True)
class BuiltModel:
    """A model tree with what its target would tell."""

    path: Path
    info: ModelInfo

    def rows(self, count: int = 6) -> Array:
        """What it can be asked, always the same."""
        generator = torch.Generator().manual_seed(3)
        keys = self.info.architecture
        if self.info.task == "image_classification":
            shape = (count, keys["num_channels"], keys["image_size"], keys["image_size"])
            return torch.rand(shape, generator=generator).numpy()
        return torch.randint(0, keys["vocab_size"], (count, LENGTH), generator=generator).numpy()

    def answers(self) -> Array:
        """What torch says to `rows`."""
        loaded = load_dense(self.path, self.info.task)
        with torch.inference_mode():
            logits: Array = loaded(torch.from_numpy(self.rows())).logits.numpy()
        return logits


def random_model(family: str, path: Path, **changed: Any) -> BuiltModel:
    """No weight of it is 0 or 1, as those of a new model are: compilers leave such ones out."""
    architecture = {**(LLAMA if family == "llama" else VIT), **changed}
    task = LanguageModel() if family == "llama" else ImageClassification()
    torch.manual_seed(0)
    model = task.create(architecture, None)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    task.save(model, path, None)
    return BuiltModel(path, ModelInfo(Artifact("model", "tree"), TASKS[family], architecture))


def quantized_model(model: BuiltModel, path: Path, **params: Any) -> BuiltModel:
    """As the rule `quantize` makes it with the scheme `rtn`: by default 8 bits, one scale a row."""
    asked = {
        "bits": 8,
        "group_size": 0,
        "symmetric": True,
        "observer": "minmax",
        "embeddings": "rtn",
        **params,
    }
    tool = quantize_images if model.info.task == "image_classification" else quantize_text
    tool.main(Request(asked, {"model": model.path}, {"model": path}))
    return BuiltModel(path, replace(model.info, quantization=asked))


@dataclass
class Conversions:
    """Makes binaries and asks them. directory: where everything goes."""

    locked: LockedTools
    directory: Path

    def make(
        self,
        toolchain: RuntimeToolchainInfo,
        model: BuiltModel,
        format_: str,
        platform: PlatformInfo,
        name: str = "made",
    ) -> Path:
        """The binary; all outputs lie beside it. What is there already from an earlier call is not made again."""
        assert toolchain.refusal(Conversion(model.info, format_, platform)) == ""
        conversion = Conversion(model.info, format_, platform, sequence_length=LENGTH)
        target = RuleRunner().convert(toolchain, conversion)
        out = self.directory / name
        out.mkdir(exist_ok=True)
        paths = {model.info.weights: model.path}
        for action in target.actions:
            inputs = {key.removeprefix("in/"): paths[each] for key, each in action.inputs.items()}
            made = {
                key.removeprefix("out/"): out / Path(each.path).name for key, each in action.outputs.items()
            }
            paths |= dict(zip(action.outputs.values(), made.values(), strict=True))
            assert isinstance(action.tool, PythonTool)
            if all(path.exists() for path in made.values()):
                continue
            if action.tool.lock is None:
                calls = self.directory / "calls"
                calls.mkdir(exist_ok=True)
                found = run_tool(action.tool, calls, inputs=inputs, outputs=tuple(made), params=action.params)
                for key, path in found.items():
                    path.rename(made[key])
            else:
                self.locked.call(action.tool, action.params, inputs, made, threads=action.threads)
        return paths[target.get(DeviceBinaryInfo).binary]

    def ask(self, toolchain: RuntimeToolchainInfo, model: BuiltModel, binary: Path) -> Array:
        """What the runtime says to `model.rows()` on this machine."""
        tool = toolchain.device_tool(HERE)
        assert tool is not None
        rows = model.rows()
        probes, logits = binary.parent / "probes", binary.parent / "logits.npy"
        targets = np.zeros(rows.shape if rows.ndim == 2 else len(rows), dtype=np.int64)
        write_probes(probes, rows, targets, task=model.info.task, split="eval", slices=["all"] * len(rows))
        outputs = {"logits": logits, "timing": binary.parent / "timing.json"}
        self.locked.call(tool, {"task": model.info.task}, {"binary": binary, "probes": probes}, outputs)
        found: Array = np.load(logits)
        return found


def largest_error(found: Array, expected: Array) -> float:
    """As a part of the largest logit."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def top1_agreement(found: Array, expected: Array) -> float:
    """Share of positions at which both put the same first."""
    return float((found.argmax(-1) == expected.argmax(-1)).mean())

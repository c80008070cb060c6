"""Runs the actions that the llama.cpp toolchain declares for a model, each tool in its own environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modelbuild.api import (
    Artifact,
    Conversion,
    DatasetInfo,
    DeviceBinaryInfo,
    Label,
    ModelInfo,
    PlatformInfo,
    PythonTool,
    RuntimeToolchainInfo,
)
from modelbuild.testing import RuleRunner, RuleTarget
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.llama_cpp import LlamaCpp
from tests.tiny_text import VOCAB_SIZE, call
from tests.toolchains.conftest import LockedTools
from toolchains.gguf.rule import LlamaCppToolchain

HOST = PlatformInfo(Label("platforms", "host", "host"), {})
DATA = DatasetInfo(Artifact("data", "tree"), ("train", "calibration"), "text_generation")
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 2048,
}
TOKENS = [[1, *range(9, 60, 2)], [1, *range(200, 279, 3)], [1, *([30, 40, 50] * 9)]]


def convert(
    toolchain: RuntimeToolchainInfo, model: ModelInfo, kind: str, data: DatasetInfo | None = None
) -> RuleTarget:
    """What the toolchain declares."""
    return RuleRunner().convert(toolchain, Conversion(model, f"gguf:{kind}", HOST, calibration=data))


@dataclass
class Maker:
    """Runs the actions that the toolchain declares for one model."""

    locked: LockedTools
    directory: Path
    info: ModelInfo
    dataset: Path | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    def toolchain(self) -> RuntimeToolchainInfo:
        """What the toolchain tells others."""
        return RuleRunner().analyze(LlamaCppToolchain, **self.attributes).get(RuntimeToolchainInfo)

    def make(self, kind: str, out: Path) -> Path:
        """The file; beside it `tensors.json` and, with a dataset, `imatrix.gguf`."""
        target = convert(self.toolchain(), self.info, kind, DATA if self.dataset else None)
        out.mkdir()
        paths = {self.info.weights: self.directory, DATA.directory: self.dataset}
        for action in target.actions:
            inputs = {name.removeprefix("in/"): paths[each] for name, each in action.inputs.items()}
            made = {
                name.removeprefix("out/"): out / Path(each.path).name for name, each in action.outputs.items()
            }
            paths |= dict(zip(action.outputs.values(), made.values(), strict=True))
            assert isinstance(action.tool, PythonTool)
            present = {name: path for name, path in inputs.items() if path is not None}
            if action.tool.lock is None:
                call(str(action.tool.source), action.params, present, made)
            else:
                self.locked.call(action.tool, action.params, present, made, threads=action.threads)
        binary = paths[target.get(DeviceBinaryInfo).binary]
        assert binary is not None
        return binary


def random_model(text: Path, out: Path, **changed: Any) -> tuple[Path, ModelInfo]:
    torch.manual_seed(1)
    task, keys = LanguageModel(), {**ARCHITECTURE, **changed}
    task.save(task.create(keys, text / "tokenizer"), out, text / "tokenizer")
    return out, ModelInfo(Artifact("model", "tree"), "text_generation", keys)


def torch_logits(model: Path) -> list[npt.NDArray[np.float32]]:
    loaded = LanguageModel().load(model)
    with torch.inference_mode():
        return [loaded(torch.tensor([ids])).logits[0].numpy() for ids in TOKENS]


def llama_logits(file: Path) -> list[npt.NDArray[np.float32]]:
    with LlamaCpp(file, threads=1, sequences=1, length=64) as llama:
        return llama.logits(TOKENS)

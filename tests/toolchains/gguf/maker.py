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
    RuntimeToolchainInfo,
)
from modelbuild.testing import ActionRunner, RuleRunner, RuleTarget
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.llama_cpp import LlamaCpp
from tests.tiny_text import VOCAB_SIZE
from tests.toolchains.workshop import DATA
from toolchains.gguf.rule import LlamaCppToolchain

HOST = PlatformInfo(Label("platforms", "host", "host"), {})
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

    environments: Path
    directory: Path
    info: ModelInfo
    dataset: Path | None = None
    attributes: dict[str, Any] = field(default_factory=dict)

    def toolchain(self) -> RuntimeToolchainInfo:
        """What the toolchain tells others."""
        return RuleRunner().analyze(LlamaCppToolchain, **self.attributes).get(RuntimeToolchainInfo)

    def make(self, kind: str, out: Path) -> Path:
        """The file, from scratch; beside it `tensors.json` and, with a dataset, `imatrix.gguf`."""
        target = convert(self.toolchain(), self.info, kind, DATA if self.dataset else None)
        out.mkdir()
        files = {self.info.weights: self.directory}
        if self.dataset is not None:
            files[DATA.directory] = self.dataset
        made = ActionRunner(out, files, self.environments).run(target)
        placed = {each: path.rename(out / Path(each.path).name) for each, path in made.items()}
        return placed[target.get(DeviceBinaryInfo).binary]


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

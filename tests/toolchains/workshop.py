"""Small models of random weights, what toolchains make of them, and what runtimes answer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file

from modelbuild.api import (
    LOCAL,
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
from modelbuild.platform import CPU, OS
from modelbuild.rules.quantize import image_tool as quantize_images
from modelbuild.rules.quantize import tool as quantize_text
from modelbuild.testing import ActionRunner, RuleRunner, run_tool
from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.model_tree import copy_tokenizer, write_json
from modelbuild.toolkit.packed_weights import pack, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import Request
from tests.tiny_text import VOCAB_SIZE

Array = npt.NDArray[Any]

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 48
"""Tokens of a row; of rows of up to 32, the ONNX export computes more ahead."""
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
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
WIDE_LLAMA: dict[str, Any] = LLAMA | {
    "hidden_size": 256,
    "intermediate_size": 320,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "initializer_range": 0.06,
}
WIDE_VIT: dict[str, Any] = VIT | {"hidden_size": 96, "intermediate_size": 160}
DATA = DatasetInfo(Artifact("data/dataset", "tree"), ("train", "calibration"), "text_generation")


def device(cpu: str = "x86_64", system: str = "linux") -> PlatformInfo:
    """A platform; one of x86-64 with Linux is this machine."""
    constraints = {CPU: Label("platforms", "cpu", cpu), OS: Label("platforms", "os", system)}
    local = (cpu, system) == ("x86_64", "linux")
    return PlatformInfo(Label("", "p", cpu), constraints, runner=LOCAL if local else None)


HERE = device()


@dataclass(frozen=True)
class BuiltModel:
    """A model tree with what its target would tell."""

    path: Path
    info: ModelInfo

    def rows(self, count: int = 0, length: int = LENGTH) -> Array:
        """What it can be asked, always the same; 4 rows of tokens or 20 pictures, or `count`."""
        generator = np.random.default_rng(3)
        keys = self.info.architecture
        if not self.info.is_text:
            shape = (count or 20, keys["num_channels"], keys["image_size"], keys["image_size"])
            return generator.random(shape, np.float32)
        return generator.integers(0, keys["vocab_size"], (count or 4, length))

    def answers(self, rows: Array | None = None) -> Array:
        """What torch says to `rows`, packed weights dequantized."""
        loaded = load_dense(self.path, self.info.task)
        with torch.inference_mode():
            logits: Array = loaded(torch.from_numpy(self.rows() if rows is None else rows)).logits.numpy()
        return logits


def random_model(
    directory: Path, architecture: Mapping[str, Any], tokenizer: Path | None = None
) -> BuiltModel:
    """No norm and no bias of it is all ones or zeros, as those of a new model are: converters leave such out."""
    keys = dict(architecture)
    images = keys["model_type"] == "vit"
    task = ImageClassification() if images else LanguageModel()
    torch.manual_seed(1)
    model = task.create(keys, tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    task.save(model, directory, tokenizer)
    kind = "image_classification" if images else "text_generation"
    return BuiltModel(directory, ModelInfo(Artifact(directory.name, "tree"), kind, keys))


def rounded_model(model: BuiltModel, directory: Path, **grid: Any) -> BuiltModel:
    """As the rule `quantize` makes it with the scheme `rtn`: by default 4 bits in groups of 32."""
    asked = {"bits": 4, "group_size": 32, "symmetric": True, "embeddings": "rtn", **grid}
    tool = quantize_text if model.info.is_text else quantize_images
    tool.main(Request({"observer": "minmax", **asked}, {"model": model.path}, {"model": directory}))
    info = replace(
        model.info,
        weights=Artifact(directory.name, "tree"),
        dtype=f"int{asked['bits']}",
        format="compressed-tensors",
        quantization={"scheme": "rtn", **asked},
    )
    return BuiltModel(directory, info)


def gptq_model(rounded: BuiltModel, directory: Path) -> BuiltModel:
    """The same integers in AutoGPTQ's format, laid out as the backend `gptqmodel` of `quantize` does.

    Layers have float16 scales; embeddings are floats with their codes aside.
    """
    config = json.loads((rounded.path / "config.json").read_text())
    bits = packed_bits(config)
    packed, floats = split_packed(read_tensors(rounded.path), bits)
    tied = bool(rounded.info.architecture.get("tie_word_embeddings"))
    tensors, aside = dict(floats), dict[str, Array]()
    for key, weight in packed.items():
        name = key.removesuffix(".weight")
        if ".layers." not in name:
            name = "model.embed_tokens" if tied else name
            tensors[f"{name}.weight"] = weight.dequantized()
            aside[f"{name}.weight_packed"] = pack(weight.codes, bits)
            aside[f"{name}.weight_scale"] = weight.scales
            aside[f"{name}.weight_shape"] = np.array(weight.codes.shape)
            if weight.zeros is not None:
                points = pack(np.ascontiguousarray(weight.zeros.T), bits)
                aside[f"{name}.weight_zero_point"] = np.ascontiguousarray(points.T)
            continue
        rows, columns = weight.codes.shape
        groups = weight.scales.shape[1]
        zeros = np.zeros((groups, rows), np.int8) if weight.zeros is None else weight.zeros.T
        # Zero points are stored less one, which is taken from a whole word and so borrows from the next.
        ones = np.uint32(sum(1 << shift for shift in range(0, 32, bits)))
        tensors[f"{name}.qweight"] = np.ascontiguousarray(pack(weight.codes, bits).T)
        tensors[f"{name}.qzeros"] = (pack(zeros, bits).view(np.uint32) - ones).view(np.int32)
        tensors[f"{name}.scales"] = np.ascontiguousarray(weight.scales.T.astype(np.float16))
        tensors[f"{name}.g_idx"] = (np.arange(columns) // (columns // groups)).astype(np.int32)
    config["tie_word_embeddings"] = tied
    config["quantization_config"] = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": bits,
        "group_size": rounded.info.quantization["group_size"] or -1,
        "sym": bool(rounded.info.quantization["symmetric"]),
        "desc_act": False,
    }
    directory.mkdir()
    copy_tokenizer(rounded.path, directory)
    write_json(directory / "config.json", config)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    if aside:
        save_file(aside, directory / "embeddings.safetensors", metadata={"format": "pt"})
    quantization = {**rounded.info.quantization, "scheme": "gptq"}
    weights = Artifact(directory.name, "tree")
    return BuiltModel(
        directory, replace(rounded.info, weights=weights, format="gptq", quantization=quantization)
    )


@dataclass
class Workshop:
    """Makes binaries and asks them; of equal actions, the first is run.

    environments: where those of locks are made. directory: where everything else goes.
    """

    environments: Path
    directory: Path
    files: dict[Artifact, Path] = field(default_factory=dict)
    """Where inputs lie that are no model."""

    def __post_init__(self) -> None:
        self._actions = ActionRunner(self.directory, dict(self.files), self.environments)

    def fresh(self) -> Workshop:
        """Another one, in another directory, that makes everything again."""
        folder = Path(tempfile.mkdtemp(prefix="fresh-elsewhere-", dir=self.directory))
        return Workshop(self.environments, folder, self.files)

    def make(
        self,
        toolchain: RuntimeToolchainInfo,
        model: BuiltModel,
        format_: str,
        platform: PlatformInfo = HERE,
        *,
        length: int = LENGTH,
        data: DatasetInfo | None = None,
    ) -> Path:
        """The binary. Raises AnalysisError for what the toolchain refuses."""
        asked = Conversion(model.info, format_, platform, sequence_length=length, calibration=data)
        return self.parts(toolchain, model, asked)[""]

    def parts(
        self, toolchain: RuntimeToolchainInfo, model: BuiltModel, conversion: Conversion, until: str = ""
    ) -> dict[str, Path]:
        """What the actions of a conversion make, by mnemonic and name of the output; `""` is the binary.

        until: the mnemonic of the last that is run; empty: all are.
        """
        target = RuleRunner().convert(toolchain, conversion)
        mnemonics = [action.mnemonic for action in target.actions]
        actions = target.actions[: mnemonics.index(until) + 1 if until else None]
        self._actions.files[model.info.weights] = model.path
        made = self._actions.run(replace(target, actions=actions))
        found = {
            f"{action.mnemonic}/{name.removeprefix('out/')}": made[artifact]
            for action in actions
            for name, artifact in action.outputs.items()
        }
        binary = target.get(DeviceBinaryInfo).binary
        return found | ({"": made[binary]} if binary in made else {})

    def ask(
        self,
        toolchain: RuntimeToolchainInfo,
        binary: Path,
        rows: Array,
        platform: PlatformInfo = HERE,
    ) -> Array:
        """What the runtime says to `rows` on this machine."""
        tool = toolchain.device_tool(platform)
        assert tool is not None
        probes = Path(tempfile.mkdtemp(prefix="probes-", dir=self.directory))
        np.save(probes / "inputs.npy", rows)
        found = self.call(tool, {"binary": binary, "probes": probes}, ("logits", "timing"))
        logits: Array = np.load(found["logits"])
        return logits

    def call(
        self,
        tool: PythonTool,
        inputs: Mapping[str, Path],
        outputs: tuple[str, ...] = (),
        **request: Any,
    ) -> dict[str, Path]:
        """Run one tool; its outputs by name. request: as of `run_tool`."""
        environments = self.environments
        return run_tool(
            tool, self.directory, inputs=inputs, outputs=outputs, environments=environments, **request
        )


def largest_error(found: Array, expected: Array) -> float:
    """As a part of the largest logit."""
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def top1_agreement(found: Array, expected: Array) -> float:
    """Share of positions at which both put the same first."""
    return float((found.argmax(-1) == expected.argmax(-1)).mean())


def size(path: Path) -> int:
    """Bytes of a file, or of every file of a tree."""
    return sum(
        each.stat().st_size for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file()
    )

"""What a toolchain makes of a model: its actions are run, each in the environment that it declares."""

from __future__ import annotations

from collections.abc import Mapping
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
from modelbuild.runner import LOCAL
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.dense_model import load_dense
from modelbuild.toolkit.image_classification import ImageClassification
from modelbuild.toolkit.language_model import LanguageModel
from tests.locked_tools import LockedTools
from tests.tiny_text import VOCAB_SIZE, call

TREE = Artifact("model", "tree")
HOST = PlatformInfo(
    Label("", "p", "host"),
    {CPU: Label("platforms", "cpu", "x86_64"), OS: Label("platforms", "os", "linux")},
    runner=LOCAL,
)
LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "initializer_range": 0.06,
    "vocab_size": VOCAB_SIZE,
    "tie_word_embeddings": True,
}
VIT = {
    "model_type": "vit",
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "num_labels": 10,
    "initializer_range": 0.1,
}
ROUNDING = {"bits": 4, "group_size": 32, "symmetric": True, "observer": "minmax", "embeddings": "rtn"}
TOKENS = 64


def random_llama(text: Path, out: Path, **changed: Any) -> ModelInfo:
    """A Llama with random weights, with the tokenizer of `text`."""
    torch.manual_seed(1)
    task, keys = LanguageModel(), {**LLAMA, **changed}
    model = task.create(keys, text / "tokenizer")
    _vary_vectors(model)
    task.save(model, out, text / "tokenizer")
    return ModelInfo(TREE, "text_generation", keys)


def random_vit(out: Path, **changed: Any) -> ModelInfo:
    """A vision transformer with random weights."""
    torch.manual_seed(1)
    task, keys = ImageClassification(), {**VIT, **changed}
    model = task.create(keys, None)
    _vary_vectors(model)
    task.save(model, out, None)
    return ModelInfo(TREE, "image_classification", keys)


def _vary_vectors(model: torch.nn.Module) -> None:
    """Norms and biases of a new model are ones and zeros, which converters leave out."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)


def rounded(parent: ModelInfo, model: Path, out: Path, **changed: Any) -> ModelInfo:
    """The model with packed weights."""
    params = {**ROUNDING, **changed}
    tool = "quantize/image_tool.py" if parent.task == "image_classification" else "quantize/tool.py"
    call(tool, params, {"model": model}, {"model": out})
    quantization = {"scheme": "rtn", **{k: v for k, v in params.items() if k != "observer"}}
    return ModelInfo(TREE, parent.task, parent.architecture, quantization=quantization)


def convert(
    locked: LockedTools,
    toolchain: RuntimeToolchainInfo,
    info: ModelInfo,
    model: Path,
    format_: str,
    out: Path,
    platform: PlatformInfo = HOST,
    done: dict[str, dict[str, Path]] | None = None,
) -> Path:
    """Run the actions that the toolchain declares; the binary. done: what ran before, and is not run again."""
    done = {} if done is None else done
    target = RuleRunner().convert(toolchain, Conversion(info, format_, platform, sequence_length=TOKENS))
    out.mkdir()
    paths = {info.weights: model}
    for action in target.actions:
        inputs = {name.removeprefix("in/"): paths[each] for name, each in action.inputs.items()}
        assert isinstance(action.tool, PythonTool)
        call_key = repr((action.tool, action.params, inputs, action.threads))
        if call_key not in done:
            made = {
                name.removeprefix("out/"): out / Path(each.path).name for name, each in action.outputs.items()
            }
            if action.tool.lock is None:
                call(str(action.tool.source), action.params, inputs, made)
            else:
                locked.call(action.tool, action.params, inputs, made, threads=action.threads)
            done[call_key] = made
        made = done[call_key]
        paths |= {each: made[name.removeprefix("out/")] for name, each in action.outputs.items()}
    return paths[target.get(DeviceBinaryInfo).binary]


def probes(info: ModelInfo, out: Path, rows: int = 3) -> npt.NDArray[Any]:
    """Random rows, as a tree that device tools read."""
    generator = np.random.default_rng(7)
    keys = info.architecture
    made: npt.NDArray[Any]
    if info.task == "image_classification":
        made = generator.random(
            (rows, keys["num_channels"], keys["image_size"], keys["image_size"]), np.float32
        )
    else:
        made = generator.integers(0, keys["vocab_size"], (rows, TOKENS))
    out.mkdir(parents=True)
    np.save(out / "inputs.npy", made)
    return made


def torch_logits(info: ModelInfo, model: Path, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """What torch answers, packed weights dequantized."""
    loaded = load_dense(model, info.task)
    with torch.inference_mode():
        answer: npt.NDArray[np.float32] = loaded(torch.from_numpy(rows)).logits.numpy()
    return answer


def device_logits(
    locked: LockedTools, tool: PythonTool | None, binary: Path, rows: Path, out: Path
) -> npt.NDArray[np.float32]:
    """What the runtime answers, in its own environment."""
    assert tool is not None
    out.mkdir()
    outputs: Mapping[str, Path] = {"logits": out / "logits.npy", "timing": out / "timing.json"}
    locked.call(tool, {}, {"binary": binary, "probes": rows}, outputs)
    found: npt.NDArray[np.float32] = np.load(outputs["logits"])
    return found


def size(path: Path) -> int:
    """Bytes of a file or of all files of a tree."""
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) or path.stat().st_size

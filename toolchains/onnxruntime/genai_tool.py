"""Makes the folder that ONNX Runtime GenAI loads: a model with a KV cache, its tokenizer and its settings.

Microsoft's model builder writes the graph, in float32, and torch is asked whether it is right; only then are
weights replaced by integers.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import weight_only
from graph import MODEL_FILE, DenseGraph, Use, check_same, write
from onnxruntime_genai.models import builder
from placing import mark_shared, rounded
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM

from modelbuild.toolkit.attention_window import attention_window
from modelbuild.toolkit.foreign_error import foreign_errors
from modelbuild.toolkit.model_tree import TOKENIZER_FILES, read_config, write_json
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import Request, ToolError

_TOLERANCE = 1e-4
_ROW = 24
_KEPT = ("genai_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def main(request: Request) -> None:
    """Inputs: model. Outputs: genai (a tree). Params: variant, one of fp32, int8, int4."""
    model, variant = request.inputs["model"], str(request.params["variant"])
    torch.set_num_threads(request.threads)
    bits = packed_bits(read_config(model))
    packed, _ = split_packed(read_tensors(model), bits) if bits else ({}, {})
    with tempfile.TemporaryDirectory() as folder:
        dense, built = Path(folder, "dense"), Path(folder, "built")
        _write_dense(model, dense, bits)
        _build(dense, built)
        expected = _torch_logits(dense)
        config = json.loads((built / "genai_config.json").read_text())
        head_size = int(config["model"]["decoder"]["head_size"])
        _compare(built / MODEL_FILE, expected, head_size, request.threads, "the builder's graph is wrong")
        graph = DenseGraph(built)
        if variant != "fp32":
            for use, weight in mark_shared(list(_placed(graph.uses(), packed, variant))):
                weight_only.replace(graph, use, weight)
        out = request.outputs["genai"]
        write(graph.proto(), out)
        for name in _KEPT:
            if (built / name).is_file():
                shutil.copyfile(built / name, out / name)
        if (model / "modelbuild.json").is_file():
            shutil.copyfile(model / "modelbuild.json", out / "modelbuild.json")
    if packed or variant == "fp32":
        _compare(out / MODEL_FILE, expected, head_size, request.threads, "packing lost something")


def _write_dense(model: Path, dense: Path, bits: int) -> None:
    """The model as floats; an output matrix that equals the embedding is left out."""
    dense.mkdir()
    config = read_config(model)
    window = attention_window(config)
    if 0 < window < int(config["max_position_embeddings"]):
        raise ToolError(f"the model has a sliding window of {window} tokens, which GenAI is not tried with")
    if window:
        config["sliding_window"] = None  # It never matters.
    config.pop("quantization_config", None)
    packed, tensors = split_packed(read_tensors(model), bits) if bits else ({}, read_tensors(model))
    floats = {name: np.array(values, np.float32) for name, values in tensors.items()}
    floats |= {name: weight.dequantized() for name, weight in packed.items()}
    table, output = floats.get("model.embed_tokens.weight"), floats.get("lm_head.weight")
    if table is not None and output is not None and np.array_equal(table, output):
        del floats["lm_head.weight"]
        config["tie_word_embeddings"] = True
    write_json(dense / "config.json", {**config, "dtype": "float32"})
    save_file(floats, dense / "model.safetensors", metadata={"format": "pt"})
    for name in TOKENIZER_FILES:
        if (model / name).is_file():
            shutil.copyfile(model / name, dense / name)


def _build(dense: Path, built: Path) -> None:
    # The builder takes any linear layer with as many outputs as there are tokens for the output matrix: a
    # gate of 512 columns ends the graph of a model with 512 tokens. Its modules are imported by bare names.
    (base,) = builder.LlamaModel.__bases__
    base.has_lm_head = lambda self, module: module is self.weights.get_output_embeddings()
    options = ("", str(dense), str(built), "fp32", "cpu", str(built.with_name("cache")))
    with foreign_errors("the model builder of ONNX Runtime GenAI refuses the model", Exception):
        builder.create_model(*options, **builder.parse_extra_options(*options, []))


def _placed(
    uses: list[Use], packed: Mapping[str, PackedWeight], variant: str
) -> Iterator[tuple[Use, PackedWeight]]:
    for use in uses:
        if not packed:
            yield use, rounded(use, variant)
            continue
        weight = _of_checkpoint(use.name, packed)
        if weight is not None:
            check_same(use, weight)
            yield use, weight


def _of_checkpoint(name: str, packed: Mapping[str, PackedWeight]) -> PackedWeight | None:
    """The weight that the builder calls `name`: it puts query, key and value into one matrix."""
    path = name.removesuffix(".weight").removesuffix(".MatMul").replace(".attn.", ".self_attn.")
    parts = [f"{path}.weight"]
    if path.endswith("qkv_proj"):
        parts = [f"{path.removesuffix('qkv_proj')}{part}_proj.weight" for part in "qkv"]
    found = [packed[part] for part in parts if part in packed]
    if not found:
        return None
    if len(found) != len(parts):
        raise ToolError(f"the checkpoint packs only some of `{'`, `'.join(parts)}`")
    # A matrix whose zero points are all in the middle has none.
    zeros = [np.zeros(w.scales.shape, np.int8) if w.zeros is None else w.zeros for w in found]
    return replace(
        found[0],
        codes=np.concatenate([weight.codes for weight in found]),
        scales=np.concatenate([weight.scales for weight in found]),
        zeros=np.concatenate(zeros) if any(weight.zeros is not None for weight in found) else None,
    )


def _tokens(vocabulary: int) -> Any:
    return np.random.default_rng(0).integers(0, vocabulary, (1, _ROW))


def _torch_logits(dense: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(str(dense), dtype=torch.float32, local_files_only=True)
    with torch.inference_mode():
        return model(torch.from_numpy(_tokens(model.config.vocab_size))).logits.numpy()


def _compare(file: Path, expected: Any, head_size: int, threads: int, message: str) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    inputs = {
        "input_ids": _tokens(expected.shape[-1]),
        "attention_mask": np.ones((1, _ROW), np.int64),
    }
    for value in session.get_inputs():
        if value.name.startswith("past"):
            inputs[value.name] = np.zeros((1, value.shape[1], 0, head_size), np.float32)
    (logits,) = session.run(["logits"], inputs)
    difference = float(np.abs(logits - expected).max() / max(1.0, float(np.abs(expected).max())))
    if not difference <= _TOLERANCE:
        raise ToolError(f"{message}: its logits differ from torch's by {difference:.2g} of the largest")

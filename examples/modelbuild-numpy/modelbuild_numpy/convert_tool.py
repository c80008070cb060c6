"""Makes an archive of a model tree."""

from __future__ import annotations

import numpy as np
from archive import Array, write_archive
from layout import CODES, EPSILON, HEADS, SCALES

from modelbuild.toolkit.model_tree import read_config
from modelbuild.toolkit.packed_weights import PackedWeight, packed_bits, read_tensors, split_packed
from modelbuild.toolkit.request import Request, ToolError


def main(request: Request) -> None:
    """Inputs: model. Outputs: archive. Params: format."""
    config = read_config(request.inputs["model"])
    for key, known in (("model_type", "vit"), ("hidden_act", "gelu")):
        if config[key] != known:
            raise ToolError(f"the model's `{key}` is `{config[key]}`, and only `{known}` is computed here")
    packed, plain = split_packed(read_tensors(request.inputs["model"]), packed_bits(config))
    arrays: dict[str, Array] = {
        HEADS: np.array(config["num_attention_heads"], dtype=np.int64),
        EPSILON: np.array(config["layer_norm_eps"], dtype=np.float64),
    }
    keeps_codes = request.params["format"] == "npz:int8"
    if keeps_codes and not packed:
        packed = {name: rounded(array) for name, array in plain.items() if array.ndim == 2}
    for name in sorted({*packed, *plain}):
        if name not in packed:
            arrays[name] = plain[name].astype(np.float32)
        elif not keeps_codes:
            arrays[name] = packed[name].dequantized()
        elif packed[name].zeros is not None:
            raise ToolError(f"the codes of `{name}` have zero points, for which there is no place")
        else:
            arrays[name + CODES], arrays[name + SCALES] = packed[name].codes, packed[name].scales
    write_archive(request.outputs["archive"], arrays)


def rounded(weight: Array) -> PackedWeight:
    """Each row to int8, symmetric: the largest weight of a row becomes 127 or -127."""
    floats = weight.astype(np.float32)
    scales = np.abs(floats).max(axis=1, keepdims=True) / np.float32(127)
    scales[scales == 0] = 1
    return PackedWeight(np.rint(floats / scales).astype(np.int8), scales, None, 8)

"""Sizes of GGUF files, told from published dimensions, are the sizes that were published.

Dimensions are those of each model's config.json. Bytes are those of files in the repositories named below.
"""

from __future__ import annotations

from typing import Any

import gguf
import pytest

from modelbuild.architecture import parameter_count, weight_tensors
from modelbuild.errors import AnalysisError
from modelbuild.gguf_layout import BLOCKS, gguf_bytes, gguf_header_bytes, tensor_bytes, tensor_types
from modelbuild.gguf_mix import FILE_TYPES

LLAMA_2_7B: dict[str, Any] = {"model_type": "llama", "num_key_value_heads": 32, "vocab_size": 32000}
LLAMA_3_8B: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
LLAMA_3_70B: dict[str, Any] = LLAMA_3_8B | {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
}
TINYLLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
}
QWEN_2_5_0_5B: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
QWEN_3_8B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
SMALL: dict[str, Any] = LLAMA_3_8B | {"num_hidden_layers": 16}


# The table of Llama-3.1-8B in llama.cpp's tools/quantize/README.md. Its IQ3_XXS was made with an importance
# matrix; IQ4_NL and IQ4_XS were not.
@pytest.mark.parametrize(
    ("file_type", "bits"),
    [
        ("IQ1_S", 2.0042),
        ("IQ1_M", 2.1460),
        ("IQ2_XXS", 2.3824),
        ("IQ2_XS", 2.5882),
        ("IQ2_S", 2.7403),
        ("IQ2_M", 2.9294),
        ("IQ3_XXS", 3.2548),
        ("IQ3_XS", 3.4977),
        ("IQ3_S", 3.6606),
        ("IQ3_M", 3.7628),
        ("IQ4_XS", 4.4597),
        ("IQ4_NL", 4.6818),
        ("Q2_K_S", 2.9697),
        ("Q2_K", 3.1593),
        ("Q3_K_S", 3.6429),
        ("Q3_K_L", 4.2979),
        ("Q4_K_S", 4.6672),
        ("Q4_K_M", 4.8944),
        ("Q5_K_S", 5.5704),
        ("Q5_K_M", 5.7036),
        ("Q6_K", 6.5633),
        ("Q8_0", 8.5008),
        ("F16", 16.0005),
    ],
)
def test_bits_of_a_weight_are_those_that_llama_cpp_publishes(file_type: str, bits: float) -> None:
    types = tensor_types(LLAMA_3_8B, file_type, imatrix=file_type == "IQ3_XXS")
    told = sum(tensor_bytes(tensor, types[tensor.name]) for tensor in weight_tensors(LLAMA_3_8B))

    assert told * 8 / parameter_count(LLAMA_3_8B) == pytest.approx(bits, abs=6e-5)


@pytest.mark.parametrize(
    ("architecture", "choices", "files"),
    [
        # TheBloke/Llama-2-7B-GGUF
        (
            LLAMA_2_7B,
            {},
            {
                "Q3_K_M": 3_298_004_672,
                "Q4_0": 3_825_807_040,
                "Q4_K_M": 4_081_004_224,
                "Q5_K_M": 4_783_156_928,
                "Q6_K": 5_529_194_176,
                "Q8_0": 7_161_089_728,
            },
        ),
        # bartowski/Meta-Llama-3.1-8B-Instruct-GGUF; the dimensions are those of Llama 3
        (
            LLAMA_3_8B,
            {"imatrix": True},
            {
                "Q4_K_M": 4_920_739_232,
                "Q5_K_M": 5_732_992_416,
                "Q6_K": 6_596_011_424,
                "Q8_0": 8_540_775_840,
            },
        ),
        # bartowski/Llama-3.3-70B-Instruct-GGUF; likewise
        (
            LLAMA_3_70B,
            {"imatrix": True},
            {
                "Q4_0": 40_116_538_336,
                "Q4_K_M": 42_520_398_816,
                "Q5_K_M": 49_949_822_112,
                "Q6_K": 57_888_148_672,
                "Q8_0": 74_975_055_008,
                "F16": 141_117_918_624,
            },
        ),
        # TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF
        (TINYLLAMA, {}, {"Q4_K_M": 668_788_096}),
        # bartowski/Qwen2.5-0.5B-Instruct-GGUF. Its rows are 896 wide, so llama.cpp falls back.
        (QWEN_2_5_0_5B, {"fallback": True}, {"Q4_K_M": 397_808_192}),
        # Qwen/Qwen2.5-0.5B-Instruct-GGUF, which stores the tied matrix twice
        (
            QWEN_2_5_0_5B | {"tie_word_embeddings": False},
            {"fallback": True},
            {"Q4_K_M": 491_400_032, "Q8_0": 675_710_816},
        ),
        # bartowski/Qwen_Qwen3-8B-GGUF
        (
            QWEN_3_8B,
            {"imatrix": True},
            {
                "Q4_0": 4_787_332_640,
                "Q4_K_M": 5_027_784_224,
                "Q5_K_M": 5_851_112_992,
                "Q6_K": 6_725_899_808,
                "Q8_0": 8_709_518_880,
            },
        ),
    ],
    ids=[
        "llama-2-7b",
        "llama-3-8b",
        "llama-3-70b",
        "tinyllama",
        "qwen2.5-0.5b",
        "qwen2.5-untied",
        "qwen3-8b",
    ],
)
def test_published_files_are_told_within_a_thousandth(
    architecture: dict[str, Any], choices: dict[str, bool], files: dict[str, int]
) -> None:
    for file_type, size in files.items():
        told = gguf_bytes(architecture, tensor_types(architecture, file_type, **choices))

        assert told == pytest.approx(size, rel=1e-3), file_type


def test_blocks_are_those_of_the_gguf_package() -> None:
    known = {type_.name: tuple(sizes) for type_, sizes in gguf.GGML_QUANT_SIZES.items()}

    assert {name: known[name] for name in BLOCKS} == BLOCKS
    assert set(FILE_TYPES.values()) <= set(BLOCKS)


def test_a_mix_gives_more_bits_where_errors_cost_most() -> None:
    types = tensor_types(SMALL, "Q4_K_M")

    assert types["lm_head.weight"] == "Q6_K"
    assert types["model.embed_tokens.weight"] == "Q4_K"
    assert types["model.norm.weight"] == "F32"
    favoured = [n for n in range(16) if types[f"model.layers.{n}.self_attn.v_proj.weight"] == "Q6_K"]
    assert favoured == [0, 1, 4, 7, 10, 13, 14, 15]
    assert favoured == [n for n in range(16) if types[f"model.layers.{n}.mlp.down_proj.weight"] == "Q6_K"]


def test_a_pure_file_has_one_type() -> None:
    types = tensor_types(SMALL, "Q4_0", pure=True)

    assert {types[tensor.name] for tensor in weight_tensors(SMALL) if tensor.role != "vector"} == {"Q4_0"}


def test_a_tied_embedding_gets_what_the_output_would() -> None:
    assert (
        tensor_types(SMALL | {"tie_word_embeddings": True}, "Q4_K_M")["model.embed_tokens.weight"] == "Q6_K"
    )


def test_rows_that_do_not_fit_are_refused_unless_the_fallback_is_asked_for() -> None:
    with pytest.raises(AnalysisError, match=r"blocks of 256 weights, and rows of .* are 896 wide"):
        tensor_types(QWEN_2_5_0_5B, "Q4_K_M")

    types = tensor_types(QWEN_2_5_0_5B, "Q4_K_M", fallback=True)
    assert types["model.layers.5.self_attn.q_proj.weight"] == "Q5_0"
    assert types["model.embed_tokens.weight"] == "Q8_0"
    assert types["model.layers.5.mlp.down_proj.weight"] == "Q6_K"  # 4864 is a multiple of 256


@pytest.mark.parametrize(
    ("architecture", "file_type", "message"),
    [
        (SMALL, "Q4_K", "GGUF has no file type `Q4_K`"),
        ({"model_type": "vit"}, "F16", "takes language models, not a `vit`"),
        (SMALL | {"hidden_size": 4080, "head_dim": 128}, "Q8_0", "blocks of 32"),
    ],
    ids=["file type", "classifier", "row"],
)
def test_what_gguf_cannot_hold_is_refused(architecture: dict[str, Any], file_type: str, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        tensor_types(architecture, file_type)


def test_the_header_of_a_large_vocabulary_is_told_within_a_tenth() -> None:
    # Bytes before the first tensor of Qwen/Qwen2.5-0.5B-Instruct-GGUF: the file less its tensors.
    assert gguf_header_bytes(QWEN_2_5_0_5B) == pytest.approx(5_947_744, rel=0.1)

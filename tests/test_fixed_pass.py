"""What every runtime of fixed lengths refuses, and what it is told of a pass."""

from __future__ import annotations

from typing import Any

import pytest

from modelbuild.api import (
    Artifact,
    Conversion,
    FixedPassToolchainInfo,
    Label,
    ModelInfo,
    PlatformInfo,
    pass_bytes,
    pass_params,
)

LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
VIT = {
    "model_type": "vit",
    "image_size": [8, 6],
    "patch_size": 2,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
HERE = PlatformInfo(Label("", "p", "here"), {})


class Narrow(FixedPassToolchainInfo):
    """Takes one family."""

    families = frozenset({"llama"})


def asked(length: int = 64, format_: str = "mine:fp32", **changed: Any) -> Conversion:
    facts = {"weights": Artifact("m", "tree"), "task": "text_generation", "architecture": LLAMA}
    return Conversion(ModelInfo(**{**facts, **changed}), format_, HERE, sequence_length=length)


@pytest.mark.parametrize(
    ("conversion", "reason"),
    [
        (asked(), ""),
        (asked(task="image_classification", architecture=VIT), ""),
        (asked(format_="mine:int2"), "makes mine:fp32"),
        (asked(task="speech"), "not one for speech"),
        (asked(architecture={"model_type": "gpt2"}), "not a model of type `gpt2`"),
        (asked(architecture=LLAMA | {"hidden_size": 0}), "`hidden_size` is 0"),
        (asked(format="exl3"), "stored as `exl3`"),
        (asked(architecture=LLAMA | {"model_type": "mistral", "sliding_window": 64}), ""),
        (
            asked(architecture=LLAMA | {"model_type": "mistral", "sliding_window": 63}),
            "looks back on 63 tokens",
        ),
        (asked(architecture=LLAMA | {"model_type": "mistral", "sliding_window": None}), ""),
        (asked(8192, architecture=LLAMA | {"model_type": "mistral"}), "looks back on 4096 tokens"),
        (asked(8192, architecture=LLAMA), ""),
        (asked(architecture=LLAMA | {"rope_parameters": {"rope_type": "llama3"}}), ""),
        (
            asked(architecture=LLAMA | {"rope_parameters": {"rope_type": "dynamic"}}),
            "embedding, `dynamic`, depends",
        ),
        (
            asked(architecture=LLAMA | {"rope_scaling": {"type": "longrope"}}),
            "embedding, `longrope`, depends",
        ),
    ],
)
def test_what_none_of_them_can_do_is_refused(conversion: Conversion, reason: str) -> None:
    found = FixedPassToolchainInfo("mine", ("mine:fp32",)).refusal(conversion)
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_toolchain_may_take_fewer_families() -> None:
    info = Narrow("mine", ("mine:fp32",))
    assert not info.refusal(asked())
    assert "takes llama here" in info.refusal(asked(task="image_classification", architecture=VIT))


def test_both_text_tasks_are_one_pass_and_images_have_no_length() -> None:
    assert pass_params(asked(32)) == {"task": "language_model", "sequence_length": 32}
    assert pass_params(asked(32, task="language_modeling")) == pass_params(asked(32))
    images = asked(32, task="image_classification", architecture=VIT)
    assert pass_params(images) == {"task": "image_classification", "sequence_length": 0}


def test_memory_of_a_pass_grows_with_its_tokens() -> None:
    assert pass_bytes(asked(64)) == 4 * 64 * (4 * 64 + 2 * 512 + 6 * 64)
    assert pass_bytes(asked(64), 2) * 2 == pass_bytes(asked(64))
    images = asked(999, task="image_classification", architecture=VIT)
    assert pass_bytes(images) == 4 * 13 * (4 * 13 + 2 * 64 + 6 * 48)

"""Models of both families through pnnx and ncnn, each in its own environment."""

from __future__ import annotations

import numpy as np
import pytest

from modelbuild.api import Conversion, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from modelbuild.toolkit.request import ToolError
from tests.tiny_text import tree
from tests.toolchains.workshop import (
    HERE,
    LENGTH,
    WIDE_LLAMA,
    WIDE_VIT,
    BuiltModel,
    Workshop,
    largest_error,
    random_model,
    rounded_model,
    size,
    top1_agreement,
)
from toolchains.ncnn.rule import NcnnToolchain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toolchain() -> RuntimeToolchainInfo:
    return RuleRunner().analyze(NcnnToolchain).get(RuntimeToolchainInfo)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, BuiltModel]:
    folder = tmp_path_factory.mktemp("models")
    llama, vit = random_model(folder / "llama", WIDE_LLAMA), random_model(folder / "vit", WIDE_VIT)
    return {
        "llama": llama,
        "untied": random_model(folder / "untied", WIDE_LLAMA | {"tie_word_embeddings": False}),
        "vit": vit,
        "llama-int4": rounded_model(llama, folder / "llama-int4"),
        "vit-int4": rounded_model(vit, folder / "vit-int4"),
        "vit-int8": rounded_model(vit, folder / "vit-int8", bits=8, group_size=0),
    }


@pytest.mark.parametrize(
    ("name", "variant", "like", "bound"),
    [
        ("llama", "fp32", "llama", 1e-5),
        ("llama", "fp16", "llama", 2e-3),
        ("llama", "int8", "llama", 5e-2),
        ("llama", "int4", "llama-int4", 1e-5),  # What it rounds is what the rule `quantize` rounds.
        ("llama-int4", "int4", "llama-int4", 1e-5),
        ("llama-int4", "int8", "llama-int4", 5e-2),
        ("untied", "fp32", "untied", 1e-5),
        ("vit", "fp32", "vit", 1e-5),
        ("vit", "fp16", "vit", 2e-3),
        ("vit", "int8", "vit", 5e-2),
        ("vit", "int4", "vit-int4", 1e-5),
        ("vit-int4", "int4", "vit-int4", 1e-5),
        ("vit-int8", "int8", "vit-int8", 5e-2),
    ],
)
def test_ncnn_answers_as_torch_does(
    toolchain: RuntimeToolchainInfo,
    shop: Workshop,
    models: dict[str, BuiltModel],
    name: str,
    variant: str,
    like: str,
    bound: float,
) -> None:
    """like: the model whose weights ncnn should have. bound: of a difference, as a part of the largest logit."""
    model, format_ = models[name], f"ncnn:{variant}"
    made = shop.make(toolchain, model, format_)
    found, expected = shop.ask(toolchain, made, model.rows()), models[like].answers()
    assert largest_error(found, expected) < bound
    assert top1_agreement(found, expected) >= {"int8": 0.85, "fp16": 0.97}.get(variant, 0.99)
    predicted = toolchain.footprint(Conversion(model.info, format_, HERE, sequence_length=LENGTH)).disk
    assert abs(predicted - size(made)) < 0.01 * size(made)
    if name in ("llama", "vit") and variant == "int4":
        assert tree(made) == tree(shop.fresh().make(toolchain, model, format_))


def test_rows_of_another_width_are_refused(
    toolchain: RuntimeToolchainInfo, shop: Workshop, models: dict[str, BuiltModel]
) -> None:
    made = shop.make(toolchain, models["llama"], "ncnn:fp32")
    rows = models["llama"].rows(1, LENGTH + 1)
    for each in (rows, np.zeros((1, 1, 8, 8), np.float32)):
        with pytest.raises(ToolError, match="takes rows of shape"):
            shop.ask(toolchain, made, each)

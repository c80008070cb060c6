"""How close the predicted sizes of compiled models are, for models that nobody has fitted anything to.

    python -m benchmarks.code_size [--models N] [--seed N]

Makes small random models, compiles each for every CPU with TVM and with IREE, and prints what was predicted beside the
size of the file. Environments of the tools are taken from the workspace's cache, or made there. A seed gives the same
models everywhere; twelve models take about ten minutes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.collect import CACHE
from modelbuild.api import Artifact, Conversion, DefaultInfo, RuntimeToolchainInfo
from modelbuild.testing import RuleRunner
from tests.toolchains.workshop import BuiltModel, Workshop, device, random_model, rounded_model, size
from toolchains.iree.rule import IreeToolchain
from toolchains.tvm.rule import TvmToolchain

CPUS = ("x86_64", "aarch64", "armv7", "riscv64")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="predicted and real sizes of compiled models")
    parser.add_argument("--models", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shop").mkdir()
        shop = Workshop(CACHE / "environments", folder / "shop")
        for number in range(given.models):
            keys = _architecture(chance)
            floats = random_model(folder / f"{number}", keys)
            bits = chance.choice((4, 8))
            rounded = rounded_model(floats, folder / f"{number}-rounded", bits=bits, group_size=0)
            for model, formats in ((floats, ("tvm:fp32", "iree:fp32")), (rounded, (f"tvm:int{bits}",))):
                for line in _compared(shop, model, formats, chance.choice((16, 32, 48, 64, 100, 128))):
                    print(f"{number:3} {keys['model_type']:6} {line}", flush=True)


def _architecture(chance: random.Random) -> dict[str, Any]:
    """Of a model with 10,000 to a million weights."""
    heads, width = chance.choice((1, 2, 3, 4, 6, 8)), chance.choice((8, 12, 16, 24, 32))
    keys: dict[str, Any] = {
        "model_type": chance.choice(("vit", "llama", "qwen2", "qwen3")),
        "hidden_size": heads * width,
        "intermediate_size": 8 * chance.randrange(4, 48),
        "num_hidden_layers": chance.choice((1, 2, 3, 4)),
        "num_attention_heads": heads,
        "initializer_range": 0.1,
    }
    if keys["model_type"] != "vit":
        shared = [each for each in range(1, heads + 1) if heads % each == 0]
        keys |= {"vocab_size": chance.choice((256, 512, 1000))}
        if keys["model_type"] == "qwen3":
            keys["head_dim"] = width
        return keys | {
            "num_key_value_heads": chance.choice(shared),
            "tie_word_embeddings": chance.random() < 0.5,
        }
    patch = chance.choice((2, 4, 7, 8))
    pictures = {"patch_size": patch, "image_size": patch * chance.randrange(2, 12)}
    return (
        keys | pictures | {"num_channels": chance.choice((1, 3)), "num_labels": chance.choice((3, 10, 100))}
    )


def _compared(shop: Workshop, model: BuiltModel, formats: tuple[str, ...], length: int) -> Iterator[str]:
    for format_ in formats:
        toolchain, last = _TOOLCHAINS[format_.partition(":")[0]]
        for cpu in CPUS:
            asked = Conversion(model.info, format_, device(cpu), sequence_length=length)
            if toolchain.refusal(asked):
                continue
            footprint = toolchain.footprint(asked)
            told = footprint.disk - footprint.detail.get("runtime", 0)
            made = size(
                next(
                    path
                    for name, path in shop.parts(toolchain, model, asked, until=last).items()
                    if last in name
                )
            )
            yield f"{format_:9} {cpu:8} {made:>9,} bytes, predicted {told:>9,}, {(told - made) / made:+.2%}"


def _toolchain(rule: Any, provided: Mapping[str, DefaultInfo]) -> RuntimeToolchainInfo:
    runner = RuleRunner()
    for label, provider in provided.items():
        runner.provide(label, provider)
    return runner.analyze(rule).get(RuntimeToolchainInfo)


_TOOLCHAINS = {
    "tvm": (
        _toolchain(
            TvmToolchain,
            {"//toolchains/tvm:runtime_sources": DefaultInfo((Artifact("streams.h", "source"),))},
        ),
        "TvmCompile",
    ),
    "iree": (_toolchain(IreeToolchain, {}), "IreeCompile"),
}


if __name__ == "__main__":
    main()

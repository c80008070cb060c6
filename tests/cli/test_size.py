"""`modelbuild size` in a small workspace: a 7B model nobody has, two toolchains, three devices."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelbuild.architecture import parameter_count
from modelbuild.cli.main import main
from modelbuild.errors import ExitCode
from modelbuild.gguf_layout import gguf_bytes, tensor_types
from modelbuild.testing import assert_golden

GOLDEN = Path(__file__).parents[1] / "golden"
ARCHITECTURE = {"model_type": "llama", "num_key_value_heads": 8, "tie_word_embeddings": True}

RULES = """
from __future__ import annotations

from typing import Any

from modelbuild.api import (
    Context, DefaultInfo, DeviceBinaryInfo, Footprint, ModelInfo, Rule, RuntimeToolchainInfo,
    gguf_bytes, kv_cache_bytes, tensor_types,
)


class Weights(Rule):
    task: str = "text_generation"
    architecture: dict[str, Any]

    def analyze(self, ctx: Context):
        out = ctx.declare_file("model.safetensors")
        ctx.write(out, "")
        return [DefaultInfo((out,)), ModelInfo(out, self.task, self.architecture)]


class Llama(RuntimeToolchainInfo):
    def refusal(self, conversion):
        return "" if conversion.model.is_text else "it takes language models only"

    def footprint(self, conversion):
        architecture = conversion.model.architecture
        size = gguf_bytes(architecture, tensor_types(architecture, conversion.format.partition(":")[2]))
        cache = kv_cache_bytes(architecture, conversion.platform.budget.context_length or 0)
        return Footprint(size, size, cache, 50_000_000 + conversion.sequence_length, {"file": size})

    def convert(self, ctx, conversion):
        out = ctx.declare_file("model.gguf")
        ctx.write(out, "")
        return DeviceBinaryInfo(out, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform):
        return None


class LlamaToolchain(Rule):
    formats: list[str]

    def analyze(self, ctx: Context):
        return [DefaultInfo(), Llama("llama.cpp", tuple(self.formats))]
"""

TOOLCHAINS = """
load(":rule.py", "llama_toolchain")

package(default_visibility = ["//visibility:public"])

toolchain_type(name = "runtime")

llama_toolchain(name = "llama", formats = ["gguf:Q8_0", "gguf:Q4_K_M", "gguf:Q2_K"])

toolchain(
    name = "llama_linux",
    toolchain = ":llama",
    toolchain_type = ":runtime",
    target_compatible_with = ["@platforms//os:linux"],
)

LINUX = ["@platforms//cpu:aarch64", "@platforms//os:linux"]

platform(name = "board", constraint_values = LINUX, disk = "32 GB", ram = "6 GB", context_length = 2048)

platform(name = "stick", constraint_values = LINUX, disk = "1 GB", ram = "1 GB", context_length = 512)

platform(name = "phone", constraint_values = ["@platforms//cpu:aarch64", "@platforms//os:ios"])
"""

TARGETS = f"""
load("//toolchains:rule.py", "weights")

package(default_visibility = ["//visibility:public"])

weights(name = "model", architecture = {ARCHITECTURE!r})

weights(name = "digits", task = "image_classification", architecture = {{"model_type": "vit"}})

alias(name = "shipped", actual = ":auto")

genrule(name = "other", outs = ["other.txt"], cmd = "echo > $@")

genrule(name = "listing", srcs = [":shipped", ":hopeless"], outs = ["l.txt"], cmd = "ls $(SRCS) > $@")

device_binary(name = "auto", model = ":model", platform = "//toolchains:board")

device_binary(name = "large", model = ":model", format = "gguf:Q8_0", platform = "//toolchains:board")

device_binary(name = "hopeless", model = ":model", platform = "//toolchains:stick")
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in {
        "modelbuild.toml": '[build]\ntoolchains = ["//toolchains:all"]\n',
        "toolchains/rule.py": RULES,
        "toolchains/BUILD.models": TOOLCHAINS,
        "targets/BUILD.models": TARGETS,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def shown(workspace: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command line prints; it succeeds and builds nothing."""

    def run(*words: str) -> str:
        code = main(["size", *words])
        captured = capsys.readouterr()
        assert code == ExitCode.OK, captured.err
        assert not (workspace / "modelbuild-out").exists()
        return captured.out

    return run


def test_a_model_is_shown_in_every_format_it_can_be_had_in(shown: Any) -> None:
    assert_golden("cli/size-model.txt", shown("//targets:model", "--platform", "//toolchains:board"), GOLDEN)


def test_a_binary_is_shown_in_its_own_format(shown: Any) -> None:
    assert_golden("cli/size-binary.txt", shown("//targets:auto", "//targets:large"), GOLDEN)


def test_formats_that_are_refused_are_told_with_the_reason(shown: Any) -> None:
    arguments = ("//targets:auto", "//targets:digits", "--formats", "--platform", "//toolchains:board")
    assert_golden("cli/size-formats.txt", shown(*arguments), GOLDEN)


def test_figures_are_those_of_the_layout(shown: Any) -> None:
    document = json.loads(shown("//targets:model", "--json", "--platform", "//toolchains:stick"))

    (target,) = document["targets"]
    assert target["parameters"] == parameter_count(ARCHITECTURE)
    assert target["platform"] == {
        "label": "//toolchains:stick",
        "disk": 10**9,
        "ram": 10**9,
        "context_length": 512,
    }
    sizes = {each["format"]: each["disk"] for each in target["formats"]}
    for name in ("Q8_0", "Q4_K_M", "Q2_K"):
        assert sizes[f"gguf:{name}"] == gguf_bytes(ARCHITECTURE, tensor_types(ARCHITECTURE, name))
    memory = target["formats"][0]["memory"]
    assert memory["kv_cache"] == 2 * 32 * 8 * 128 * 512 * 2 == target["kv_cache_float16"]
    assert memory["total"] == memory["weights"] + memory["kv_cache"] + memory["runtime"]
    assert target["format"] is None


def test_a_platform_on_the_command_line_goes_before_the_target_s_own(shown: Any) -> None:
    def made(*words: str) -> list[tuple[str, str | None]]:
        targets = json.loads(shown(*words, "--json"))["targets"]
        return [(each["platform"]["label"], each["format"]) for each in targets]

    assert made("//targets:auto") == [("//toolchains:board", "gguf:Q4_K_M")]
    assert made("//targets:auto", "--platform", "//toolchains:stick") == [("//toolchains:stick", None)]
    assert made("//targets:hopeless") == [("//toolchains:stick", None)]


def test_a_wildcard_means_models_and_binaries_and_an_alias_what_it_stands_for(shown: Any) -> None:
    labels = [each["label"] for each in json.loads(shown("//targets/...", "--json"))["targets"]]

    assert sorted(labels) == [
        f"//targets:{name}" for name in ("auto", "digits", "hopeless", "large", "model", "shipped")
    ]


def test_a_platform_without_toolchains_is_told(shown: Any) -> None:
    assert "no toolchain is for this platform" in shown("//targets:model", "--platform", "//toolchains:phone")


@pytest.mark.usefixtures("workspace")
def test_a_target_that_is_no_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", "//targets:other"]) == ExitCode.USAGE
    assert "no model or device binary matches `//targets:other`" in capsys.readouterr().err


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("name", ["large", "hopeless"])
def test_what_is_over_budget_is_refused_before_anything_runs(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", f"//targets:{name}"]) == ExitCode.USAGE
    assert_golden(f"cli/over-budget-{name}.txt", capsys.readouterr().err, GOLDEN)


@pytest.mark.usefixtures("workspace")
def test_nothing_heavy_is_imported() -> None:
    program = (
        "import sys; from modelbuild.cli.main import main; assert main(['size', '//targets:auto']) == 0;"
        "print(sorted({'torch', 'numpy', 'gguf', 'transformers', 'networkx'} & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert process.stdout.splitlines()[-1] == "[]"


def test_what_suits_certain_models_only_is_told_and_never_chosen(workspace: Path, shown: Any) -> None:
    rules = workspace / "toolchains/rule.py"
    named = 'tuple(self.formats), named_only=frozenset({"gguf:Q4_K_M", "gguf:Q2_K"}))'
    rules.write_text(rules.read_text().replace("tuple(self.formats))", named))
    lines = shown("//targets:model", "--platform", "//toolchains:board").splitlines()
    assert sum(line.endswith("  yes, but only by name") for line in lines) == 2
    (target,) = json.loads(shown("//targets:auto", "--json"))["targets"]
    assert target["format"] is None, "Q8_0 is too large, and the others have to be named"
    assert [each["only_by_name"] for each in target["formats"]] == [False, True, True]


def test_without_a_context_length_it_says_how_long_caches_are(workspace: Path, shown: Any) -> None:
    rules = workspace / "toolchains/rule.py"
    rules.write_text(rules.read_text().replace("context_length or 0", "context_length or 512"))
    said = "KV caches as long as the model was made for"
    assert said in shown("//targets:model")
    assert said not in shown("//targets:model", "--platform", "//toolchains:board")

"""What is brought in goes through the other rules as if it had been trained here."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modelbuild.artifact import Artifact
from modelbuild.checkpoint import checkpoint_bytes
from modelbuild.provider import DatasetInfo, DeviceBinaryInfo, MetricsInfo, ModelInfo, ProbesInfo
from modelbuild.rule import Rule
from modelbuild.rules.device.rule import Probes
from modelbuild.rules.distill.rule import Distill
from modelbuild.rules.evaluate.rule import Evaluate
from modelbuild.rules.gguf.rule import Gguf
from modelbuild.rules.prune.rule import Prune
from modelbuild.rules.quantize.rule import Quantize
from modelbuild.testing import ActionRunner, RuleRunner, RuleTarget
from modelbuild.toolkit.language_model import LanguageModel
from tests.foreign_model import ROWS, bring_in, save

SMALL = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


class Pipeline:
    """Targets, one made of the other, and where what they make lies."""

    def __init__(self, dataset: Path, directory: Path) -> None:
        data = DatasetInfo(Artifact("data", "tree"), ("train", "calibration", "eval"), "text_generation")
        self._files = {data.directory: dataset}
        self._runner = RuleRunner()
        self._runner.provide(":data", data)
        self._directory = directory

    def bring_in(self, folder: Path) -> None:
        """As `:base`."""
        made = bring_in(folder, self._directory, self._files)
        self._runner.provide(":base", *made.target.providers.values())

    def make(self, rule: type[Rule], name: str, **attributes: Any) -> RuleTarget:
        """Build a target and hand on its providers."""
        target = self._runner.analyze(rule, name=name, **attributes)
        ActionRunner(self._directory, self._files).run(target)
        self._runner.provide(f":{name}", *target.providers.values())
        return target

    def path(self, artifact: Artifact) -> Path:
        """Where it lies."""
        return self._files[artifact]


@pytest.fixture(scope="module")
def qwen(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    directory = tmp_path_factory.mktemp("qwen")
    made = Pipeline(text / "dataset", directory / "work")
    made.bring_in(save(directory / "folder", "qwen2", dtype=torch.bfloat16))
    return made


def metrics(pipeline: Pipeline, name: str, **attributes: Any) -> dict[str, float]:
    target = pipeline.make(Evaluate, name, dataset=":data", threads=1, **attributes)
    data = json.loads(pipeline.path(target.get(MetricsInfo).metrics).read_text())
    found: dict[str, float] = data["slices"]["all"]
    return found


def test_a_pruned_model_has_float32_and_the_layers_that_are_left(qwen: Pipeline) -> None:
    target = qwen.make(
        Prune,
        "pruned",
        model=":base",
        method="structured",
        ratio={"layers": 0.5, "mlp": 0.5},
        dataset=":data",
        recovery_steps=1,
        threads=1,
    )
    info = target.get(ModelInfo)
    tree = qwen.path(info.weights)
    config = json.loads((tree / "config.json").read_text())
    assert (config["num_hidden_layers"], config["layer_types"]) == (1, ["full_attention"])
    assert checkpoint_bytes(info) == (tree / "model.safetensors").stat().st_size
    assert LanguageModel().load(tree) is not None


@pytest.mark.parametrize("embeddings", ["rtn", "float"])
def test_sizes_of_a_quantized_model_are_told_to_the_byte(qwen: Pipeline, embeddings: str) -> None:
    name = f"int4-{embeddings}"
    info = qwen.make(Quantize, name, model=":base", scheme="rtn", embeddings=embeddings, threads=1).get(
        ModelInfo
    )
    files = list(qwen.path(info.weights).glob("*.safetensors"))
    assert checkpoint_bytes(info) == sum(file.stat().st_size for file in files)


def test_llama_cpp_is_judged_by_the_model_itself(qwen: Pipeline) -> None:
    qwen.make(Gguf, "gguf", model=":base")
    found = metrics(qwen, "gguf-eval", subject=":gguf", parent=":base")
    assert found["kl_divergence"] < 1e-9
    assert found["bits_per_byte"] == pytest.approx(
        metrics(qwen, "eval", subject=":base")["bits_per_byte"], rel=1e-5
    )


def test_integers_are_packed_as_they_are(qwen: Pipeline) -> None:
    qwen.make(Quantize, "int4", model=":base", scheme="rtn", threads=1)
    packed = qwen.make(Gguf, "int4-gguf", model=":int4")
    assert packed.get(DeviceBinaryInfo).format == "gguf:Q4_0"
    assert metrics(qwen, "int4-eval", subject=":int4-gguf", parent=":int4")["kl_divergence"] < 1e-3


def test_it_teaches(qwen: Pipeline) -> None:
    student = qwen.make(
        Distill,
        "student",
        teacher=":base",
        dataset=":data",
        steps=1,
        batch_size=4,
        threads=1,
        architecture=SMALL,
    ).get(ModelInfo)
    config = json.loads((qwen.path(student.weights) / "config.json").read_text())
    assert config["vocab_size"] == student.architecture["vocab_size"] == ROWS
    qwen.make(Gguf, "student-gguf", model=":student")


def test_its_tokenizer_encodes_probes(qwen: Pipeline) -> None:
    info = qwen.make(Probes, "probes", dataset=":data", tokenizer=":base", length=64).get(ProbesInfo)
    assert json.loads((qwen.path(info.directory) / "probes.json").read_text())["rows"] > 0


def test_chat_tokens_of_a_dataset_are_the_same_for_llama_cpp_and_torch(text: Path, tmp_path: Path) -> None:
    """A dataset for a chat model writes its markup; both read it as control tokens."""
    data = tmp_path / "data"
    data.mkdir()
    for file in (text / "dataset").iterdir():
        rows = file.read_text().replace('{"prompt": "', '{"prompt": "<|im_start|>user\\n')
        (data / file.name).write_text(rows)
    pipeline = Pipeline(data, tmp_path / "work")
    pipeline.bring_in(save(tmp_path / "folder", "qwen3"))
    pipeline.make(Gguf, "gguf", model=":base")
    assert metrics(pipeline, "eval", subject=":gguf", parent=":base")["kl_divergence"] < 1e-9

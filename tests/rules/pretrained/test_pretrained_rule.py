import re
from typing import Any

import pytest

from modelbuild.artifact import Artifact
from modelbuild.errors import ModelbuildError
from modelbuild.provider import DatasetInfo, DefaultInfo, DeviceBinaryInfo, ModelInfo, TokenizerInfo
from modelbuild.rules.distill.rule import Distill
from modelbuild.rules.gguf.rule import Gguf
from modelbuild.rules.pretrained.rule import Pretrained
from modelbuild.rules.quantize.rule import Quantize
from modelbuild.rules.train.rule import Train
from modelbuild.testing import RuleRunner, RuleTarget

QWEN: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
SMALL = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
VIT: dict[str, Any] = {
    "model_type": "vit",
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
    "hidden_size": 16,
    "num_attention_heads": 2,
}
DATA = DatasetInfo(Artifact("pkg/data/dataset", "tree"), ("train", "calibration"), "text_generation")


def analyze(*files: str, runner: RuleRunner | None = None, **attributes: Any) -> RuleTarget:
    runner = runner or RuleRunner()
    for file in files or FILES:
        runner.source(f":qwen/{file}")
    labels = [f":qwen/{file}" for file in files or FILES]
    return runner.analyze(Pretrained, **{"srcs": labels, "architecture": QWEN, **attributes})


def base(runner: RuleRunner, **attributes: Any) -> RuleTarget:
    """A target `:base` for other rules."""
    target = analyze(runner=runner, **attributes)
    runner.provide(":base", *target.providers.values())
    runner.provide(":data", DATA)
    return target


def test_it_is_a_model_and_its_tokenizer_before_anything_runs() -> None:
    target = analyze(licence="apache-2.0")
    info = target.get(ModelInfo)
    assert (info.task, info.dtype, info.licence) == ("text_generation", "bfloat16", "apache-2.0")
    assert info.architecture["head_dim"] == 64
    assert info.tokenizer == target.get(TokenizerInfo)
    assert target.get(DefaultInfo).files == (info.weights,)
    action = target.named("Pretrained")
    assert action.params["weights"]["model.embed_tokens.weight"] == [151936, 896]
    assert "lm_head.weight" not in action.params["weights"]
    assert action.resources.disk == 494_032_768 * 2


def test_only_what_is_read_is_an_input() -> None:
    target = analyze(
        *FILES,
        "README.md",
        "pytorch_model.bin",
        "original/params.json",
        "consolidated.safetensors",
        "vocab.json",
    )
    assert sorted(target.named("Pretrained").inputs) == [
        "in/files/config.json",
        "in/files/model.safetensors",
        "in/tokenizer",
    ]
    tokenizer = sorted(name.removeprefix("in/files/") for name in target.named("PretrainedTokenizer").inputs)
    assert tokenizer == ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"]


def test_a_model_in_several_files() -> None:
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    target = analyze("config.json", "tokenizer.json", "model.safetensors.index.json", *shards)
    assert {f"in/files/{name}" for name in shards} < set(target.named("Pretrained").inputs)


def test_a_tree_that_another_target_made() -> None:
    runner = RuleRunner()
    tree = Artifact("pkg/fetched/model", "tree")
    runner.provide(":fetched", DefaultInfo((tree,)))
    target = runner.analyze(Pretrained, srcs=[":fetched"], architecture=QWEN)
    assert target.named("Pretrained").inputs["in/folder"] == tree
    assert target.named("PretrainedTokenizer").inputs == {"in/folder": tree}


def test_two_targets_for_two_tasks_share_what_they_make() -> None:
    one, two = analyze(), analyze(task="language_modeling")
    assert two.get(ModelInfo).task == "language_modeling"
    assert one.named("Pretrained").params == two.named("Pretrained").params


@pytest.mark.parametrize(
    ("files", "attributes", "message"),
    [
        (
            FILES,
            {"architecture": {"model_type": "gpt2"}},
            "type `gpt2` cannot be brought in.*\n.*known are llama",
        ),
        (FILES, {"architecture": {}}, "type `None` cannot be brought in"),
        (FILES, {"architecture": QWEN | {"auto_map": {"AutoConfig": "x.Y"}}}, "needs code of its own"),
        (FILES, {"architecture": QWEN | {"quantization_config": {"bits": 4}}}, "quantized already"),
        (FILES, {"architecture": QWEN | {"hidden_size": 0}}, "`hidden_size` is 0"),
        (FILES, {"architecture": QWEN | {"torch_dtype": "float8"}}, "weights of type `float8`"),
        (FILES, {"task": "image_classification"}, "type `qwen2` is not for `image_classification`"),
        (FILES[1:], {}, "no `config.json`"),
        (FILES[:2], {}, "no `tokenizer.json`"),
        (("config.json", "tokenizer.json"), {}, "neither `model.safetensors` nor"),
        (("config.json", "tokenizer.json", "model-00001-of-00002.safetensors"), {}, "neither"),
        (
            ("config.json", "tokenizer.json", "pytorch_model-00001-of-00002.bin"),
            {},
            r"its weights are pickled \(`pytorch_model-00001-of-00002.bin`\)",
        ),
        (
            ("config.json", "tokenizer.json", "adapter_config.json", "adapter_model.safetensors"),
            {},
            "holds an adapter",
        ),
        (FILES, {"architecture": VIT}, "has no `preprocessor_config.json`"),
        (FILES, {"architecture": VIT, "task": "text_generation"}, "type `vit` is not for `text_generation`"),
    ],
)
def test_what_cannot_be_brought_in_is_refused_at_analysis(
    files: tuple[str, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelbuildError) as caught:
        analyze(*files, **attributes)
    assert re.search(message, str(caught.value))


def test_what_cannot_be_made_of_it_is_told_before_anything_runs() -> None:
    runner = RuleRunner()
    base(runner, architecture=QWEN | {"rope_scaling": {"type": "dynamic", "factor": 2.0}})
    with pytest.raises(ModelbuildError, match="its rotary embedding is of type `dynamic`"):
        runner.analyze(Gguf, model=":base")
    with pytest.raises(ModelbuildError, match="`group_size` 100 does not divide `hidden_size` 896"):
        runner.analyze(Quantize, model=":base", scheme="rtn", group_size=100)


def test_gguf_stores_bfloat16_as_what_loses_nothing() -> None:
    runner = RuleRunner()
    base(runner)
    assert runner.analyze(Gguf, model=":base").get(DeviceBinaryInfo).format == "gguf:F32"


def test_students_have_as_many_rows_as_their_teacher() -> None:
    """The tokenizer has fewer tokens, and how many is not known before it is read."""
    runner = RuleRunner()
    base(runner)
    student = runner.analyze(Distill, teacher=":base", dataset=":data", steps=2, architecture=SMALL)
    assert student.get(ModelInfo).architecture["vocab_size"] == 151936
    assert student.named("Distill").params["architecture"]["vocab_size"] == 151936
    with pytest.raises(ModelbuildError, match="`vocab_size` is 151700, the teacher's is 151936"):
        runner.analyze(
            Distill, teacher=":base", dataset=":data", steps=2, architecture=SMALL | {"vocab_size": 151700}
        )


def test_its_tokenizer_trains_other_models() -> None:
    runner = RuleRunner()
    base(runner)
    made = runner.analyze(Train, tokenizer=":base", dataset=":data", steps=2, architecture=SMALL)
    assert made.action.params["architecture"]["vocab_size"] == 151936
    tight = runner.analyze(
        Train, tokenizer=":base", dataset=":data", steps=2, architecture=SMALL | {"vocab_size": 151665}
    )
    assert tight.action.params["architecture"]["vocab_size"] == 151665


def test_what_stays_floating_point_in_a_quantized_model_is_as_it_was() -> None:
    runner = RuleRunner()
    base(runner)
    assert (
        runner.analyze(Quantize, model=":base", scheme="rtn").get(ModelInfo).quantization["floats"]
        == "bfloat16"
    )

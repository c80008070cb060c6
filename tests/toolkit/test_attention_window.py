from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from modelbuild.toolkit.attention_window import check_window
from modelbuild.toolkit.fixed_shape import FixedText
from modelbuild.toolkit.onnx_dense import CausalLogits
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.static_model import static_model

LENGTH = 12
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.5,
}


def model(**keys: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**SIZES, **keys)).eval()


def difference(made: Any, wrap: Callable[[Any], Any]) -> float:
    """Of the wrapped model from the model, which wrapping changes."""
    ids = torch.arange(LENGTH)[None]
    with torch.inference_mode():
        expected = made(input_ids=ids).logits
        found = wrap(made)(ids)
    return float((found - expected).abs().max() / expected.abs().max())


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "fixed_shape": lambda made: FixedText(made, LENGTH),
    "onnx_dense": lambda made: CausalLogits(made, LENGTH),
    "static_model": lambda made: static_model(made, "text_generation", LENGTH).module,
}


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize(
    "keys",
    [
        {"model_type": "mistral", "sliding_window": LENGTH},
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "qwen2", "sliding_window": 4, "use_sliding_window": False},
        {"model_type": "llama"},
    ],
)
def test_without_a_window_that_matters_the_export_is_the_model(wrapper: str, keys: dict[str, Any]) -> None:
    made = model(**keys)
    assert difference(made, WRAPPERS[wrapper]) < 1e-5


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
@pytest.mark.parametrize(
    "keys",
    [
        {"model_type": "mistral", "sliding_window": LENGTH - 1},
        {"model_type": "qwen3", "sliding_window": 4, "use_sliding_window": True, "max_window_layers": 1},
    ],
)
def test_a_shorter_window_is_refused(wrapper: str, keys: dict[str, Any]) -> None:
    with pytest.raises(ToolError, match=f"and this export is of {LENGTH}"):
        WRAPPERS[wrapper](model(**keys))


def test_the_refusal_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is exported without it answers something else."""
    monkeypatch.setattr("modelbuild.toolkit.fixed_shape.check_window", lambda *_: None)
    made = model(model_type="mistral", sliding_window=4)
    with pytest.raises(ToolError):
        check_window(made.config.to_dict(), LENGTH)
    assert difference(made, WRAPPERS["fixed_shape"]) > 0.01

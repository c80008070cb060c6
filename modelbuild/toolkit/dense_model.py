"""Any model tree as a plain torch model in float32, for tools that trace or export it.

Packed integer weights become the floats they stand for in ordinary linear layers. LanguageModel.load gives
layers of compressed-tensors instead, which unpack while they run and which no exporter follows. Imports torch
and transformers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from modelbuild.toolkit.image_classification import ImageClassification, check_loaded, dequantized_tensors
from modelbuild.toolkit.model_tree import read_config

logging.set_verbosity_error()
logging.disable_progress_bar()


def load_dense(model: Path, task: str) -> torch.nn.Module:
    """The model in eval mode. task: `image_classification`; anything else is a causal language model.

    Raises ToolError when a weight is missing, left over or of another shape.
    """
    if task == "image_classification":
        return ImageClassification().load(model)
    keys = read_config(model)
    keys.pop("quantization_config", None)
    config = AutoConfig.for_model(**keys)
    loaded, facts = type(AutoModelForCausalLM.from_config(config)).from_pretrained(
        None,
        config=config,
        state_dict=dequantized_tensors(model),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # so that they are listed, and refused below
        output_loading_info=True,
    )
    check_loaded(facts)
    assert isinstance(loaded, torch.nn.Module)
    return loaded.eval()

"""What a language model answers to probes, in torch. Imports torch and transformers."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer

from modelbuild.toolkit.device_run import read_probes
from modelbuild.toolkit.language_model import LanguageModel, load_vocabulary
from modelbuild.toolkit.logits_file import write_logits
from modelbuild.toolkit.progress import report
from modelbuild.toolkit.request import Request, ToolError

_AT_ONCE = 8


def main(request: Request) -> None:
    """Inputs: model, probes. Outputs: logits. Packed weights are dequantized; all is float32."""
    directory, path = request.inputs["probes"], request.inputs["model"]
    encoder = Tokenizer.from_file(str(directory / "tokenizer.json"))
    if load_vocabulary(path).tokenizer.get_vocab() != encoder.get_vocab():
        raise ToolError(
            "the probes were encoded with another tokenizer than the model's",
            "give `probes` the tokenizer that the model was trained with",
        )
    rows = torch.from_numpy(read_probes(directory))
    model = LanguageModel().load(path)
    found = []
    with torch.inference_mode():
        for start in range(0, len(rows), _AT_ONCE):
            # No mask: rows are padded on the right, and a causal model never looks there.
            answer = model(input_ids=rows[start : start + _AT_ONCE], use_cache=False)
            found.append(answer.logits.float().numpy())
            report(min(start + _AT_ONCE, len(rows)), len(rows), unit="probes")
    write_logits(request.outputs["logits"], np.concatenate(found))

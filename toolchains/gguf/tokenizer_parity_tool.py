"""Compares llama.cpp's tokenizer with the Hugging Face tokenizer, text by text."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from modelbuild.toolkit.gguf_vocabulary import write_vocabulary
from modelbuild.toolkit.llama_cpp import LlamaVocabulary
from modelbuild.toolkit.request import Request, ToolError

_SHOWN = 24


def main(request: Request) -> None:
    """Inputs: tokenizer, probes, binary where a file is judged. Outputs: verdict. Params: vocab_size."""
    directory = request.inputs["tokenizer"]
    texts = read_texts(request.inputs["probes"])
    theirs = Tokenizer.from_file(str(directory / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        binary = request.inputs.get("binary")
        if binary is None:
            binary = Path(folder) / "vocabulary.gguf"
            write_vocabulary(binary, directory, int(request.params["vocab_size"]))
        with LlamaVocabulary(binary) as ours:
            difference = first_difference(ours, theirs, texts)
    summary = difference or f"{len(texts)} texts tokenize alike"
    verdict = {"passed": not difference, "summary": summary, "texts": len(texts)}
    request.outputs["verdict"].write_text(json.dumps(verdict, indent=1, sort_keys=True) + "\n")


def read_texts(path: Path) -> list[str]:
    """One JSON string a line. Raises ToolError for anything else, and when there are none."""
    texts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line:
            continue
        try:
            text = json.loads(line)
        except ValueError as error:
            raise ToolError(f"{path.name}:{number} is not JSON: {error}") from error
        if not isinstance(text, str):
            raise ToolError(f"{path.name}:{number} is not a JSON string")
        texts.append(text)
    if not texts:
        raise ToolError(f"`{path.name}` holds no texts", "a test of nothing would always pass")
    return texts


def first_difference(ours: LlamaVocabulary, theirs: Tokenizer, texts: Sequence[str]) -> str:
    """The first text with other tokens, or that does not come back; empty when there is none.

    Of a tokenizer with a normalizer the normalized text is to come back.
    """
    for special in (True, False):
        theirs.encode_special_tokens = not special
        way = "control tokens read" if special else "control tokens as text"
        for text in texts:
            expected = theirs.encode(text, add_special_tokens=False).ids
            found = ours.tokenize(text, special=special)
            if found != expected:
                return f"{text!r} ({way}): llama.cpp {_shown(found)}, Hugging Face {_shown(expected)}"
            whole = text if theirs.normalizer is None else theirs.normalizer.normalize_str(text)
            if not special and ours.detokenize(found) != whole:
                return f"{text!r} becomes {ours.detokenize(found)!r} in llama.cpp"
    return ""


def _shown(tokens: Sequence[int]) -> str:
    more = f", ... {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else ""
    return f"[{', '.join(map(str, tokens[:_SHOWN]))}{more}]"

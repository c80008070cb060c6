"""Runtimes that compute a whole row at once, of a length that is fixed when the binary is made.

They have no KV cache; a row of tokens, or one picture, is one pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from modelbuild.architecture import MODEL_TYPES, attention_window, complete_architecture, weight_tensors
from modelbuild.errors import AnalysisError
from modelbuild.runtime_toolchain import Conversion, RuntimeToolchainInfo

_DEPENDING_ON_THE_ROW = ("dynamic", "longrope")
_STORED = ("safetensors", "compressed-tensors", "gptq")
"""Formats of checkpoints that the tools of modelbuild.toolkit read."""


@dataclass(frozen=True)
class FixedPassToolchainInfo(RuntimeToolchainInfo):
    """The base of toolchains for such runtimes. families: the model types that they take."""

    fixed_length: ClassVar[bool] = True
    families: ClassVar[frozenset[str]] = MODEL_TYPES

    def refusal(self, conversion: Conversion) -> str:
        """What none of them can do: another format, task, family or checkpoint, and a window of attention.

        A toolchain adds what it cannot do itself: `return super().refusal(conversion) or ...`.
        """
        model, keys = conversion.model, conversion.model.architecture
        if conversion.format not in self.formats:
            return f"this toolchain makes {', '.join(self.formats)}"
        if not model.is_text and model.task != "image_classification":
            return (
                f"{self.runtime} takes language models and image classifiers here, not one for {model.task}"
            )
        family = keys.get("model_type")
        if family not in self.families:
            known = ", ".join(sorted(self.families))
            return f"{self.runtime} takes {known} here, not a model of type `{family}`"
        if model.format not in _STORED:
            return f"weights stored as `{model.format}` are not read here"
        try:
            weight_tensors(keys)
        except AnalysisError as error:
            return error.message
        kind = _rotary_kind(keys)
        if kind in _DEPENDING_ON_THE_ROW:
            return f"its rotary embedding, `{kind}`, depends on the row, which no converter follows"
        window = attention_window(keys)
        if window and window < conversion.sequence_length:
            return (
                f"its attention looks back on {window} tokens, and a pass over {conversion.sequence_length} "
                "would let it look back on all of them"
            )
        return ""


def _rotary_kind(keys: Mapping[str, Any]) -> str:
    rope = keys.get("rope_parameters") or keys.get("rope_scaling") or {}
    return str(rope.get("rope_type") or rope.get("type") or "default")


def pass_params(conversion: Conversion) -> dict[str, object]:
    """What a tool has to know of the pass: `task`, and `sequence_length`, which is 0 for images.

    Both text tasks have one name, so that they share the action.
    """
    model = conversion.model
    return {
        "task": "language_model" if model.is_text else model.task,
        "sequence_length": conversion.sequence_length if model.is_text else 0,
    }


def table_bytes(conversion: Conversion) -> int:
    """Bytes of the float32 mask and angles of a language model's positions, if they are computed ahead."""
    if not conversion.model.is_text:
        return 0
    length = conversion.sequence_length
    return 4 * length * (length + 2 * int(complete_architecture(conversion.model.architecture)["head_dim"]))


def pass_bytes(conversion: Conversion, number_bytes: int = 4) -> int:
    """Memory of one pass at most: attention scores, two wide rows and some narrow ones for each token.

    number_bytes: of one activation.
    """
    keys = complete_architecture(conversion.model.architecture)
    tokens = conversion.sequence_length
    if not conversion.model.is_text:
        image, patch = (
            size if isinstance(size, (list, tuple)) else (size, size)
            for size in (keys["image_size"], keys["patch_size"])
        )
        tokens = (image[0] // patch[0]) * (image[1] // patch[1]) + 1
    widest = max(int(keys["intermediate_size"]), int(keys.get("vocab_size") or 0))
    row = int(keys["num_attention_heads"]) * tokens + 2 * widest + 6 * int(keys["hidden_size"])
    return number_bytes * tokens * row

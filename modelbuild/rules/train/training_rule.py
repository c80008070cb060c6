"""TrainingRule: the attributes of every rule that runs the training loop from nothing."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from modelbuild.api import Rule


class TrainingRule(Rule):
    """The base of `train` and `distill`."""

    steps: int = Field(ge=1)
    """Updates of the weights."""
    batch_size: int = Field(default=32, ge=1)
    """Examples a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """The highest one, reached after `warmup` steps."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls to zero afterwards."""
    warmup: int = Field(default=0, ge=0)
    """Steps in which the learning rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled (AdamW), on matrices only."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Gradients are scaled down to this norm; 0 leaves them."""
    sequence_length: int = Field(default=512, ge=2)
    """Longest sequence in tokens: a longer prompt with completion is an error, longer texts are cut."""
    seed: int = Field(default=0, ge=0)
    """Of the first weights, the order of examples and dropout."""
    threads: int = Field(default=2, ge=1)
    """CPU threads. In the key: sums over another number of threads round otherwise."""

    def training_params(self) -> dict[str, Any]:
        """What the tool gets of it; the thread count is a part of the action itself."""
        return self.model_dump(
            include=TrainingRule.model_fields.keys() - Rule.model_fields.keys() - {"threads"}
        )

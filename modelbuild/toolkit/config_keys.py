"""Keys of a `config.json` that change nothing of what a model computes. Standard library only."""

from __future__ import annotations

HARMLESS = frozenset(
    {
        *("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path"),
        *("initializer_range", "attention_dropout", "use_cache", "pretraining_tp", "return_dict"),
        *("output_attentions", "output_hidden_states", "id2label", "label2id", "problem_type"),
        *("is_encoder_decoder", "chunk_size_feed_forward"),
    }
)
"""They say how it was trained or is to be loaded. `pretraining_tp` only splits sums, and transformers 5 no
longer does."""
WINDOW = frozenset({"sliding_window", "use_sliding_window", "max_window_layers", "layer_types"})
"""They mean nothing while every layer sees everything."""

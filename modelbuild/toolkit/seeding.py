"""What makes two runs of one action give the same bytes. torch is imported when asked for."""

from __future__ import annotations

import random


def seed_torch(seed: int, threads: int) -> None:
    """Fix torch's thread count, algorithms and generator, and Python's generator.

    With the same torch build, CPU kind, seed and threads, two runs then agree bit for bit; another thread
    count sums in another order, which is why it is in the action key.
    """
    import torch  # noqa: PLC0415 - this module is also imported by tools without torch

    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
    # Every operation here writes all of its result; filling it first would only hide one that does not.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

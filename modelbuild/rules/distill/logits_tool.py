"""Keeps the logits of a language model that is a teacher."""

from __future__ import annotations

from modelbuild.toolkit.language_model import LanguageModel
from modelbuild.toolkit.request import Request
from modelbuild.toolkit.teacher_logits import run_teacher_logits


def main(request: Request) -> None:
    """See `run_teacher_logits`."""
    run_teacher_logits(request, LanguageModel())

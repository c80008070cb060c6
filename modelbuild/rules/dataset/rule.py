"""The rule `dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from modelbuild.api import Context, DatasetInfo, DefaultInfo, File, Files, Provider, PythonTool, Rule

Task = Literal["text_generation", "language_modeling", "image_classification"]


class Dataset(Rule):
    """A dataset made by a script, with a check that training never saw what evaluation asks.

    The script defines `generate(args, seed)`, which yields `(split, row)` pairs; a row is a dict of plain
    data. It sees nothing else of the machine, so the dataset is a function of the script, `args`, `seed` and
    `srcs`, and all four are in the key. With `srcs` it is `generate(args, seed, sources)`. Output:
    one `<split>.jsonl` a split, and `dataset.json`, which counts rows by split and slice.

    The rows of each task:

    - `text_generation`: `prompt`, `completion` and, where there are several kinds, `slice`;
    - `language_modeling`: `text`, `file`;
    - `image_classification`: `pixels` (rows of numbers), `label`.

    A validation is built with the target and fails it: rows are well formed; no prompt (text, image) of
    `eval` is found in another split, letter case, punctuation and spacing aside; none is twice in `eval`;
    completions parse when `completion_format` says how.
    """

    generator: File
    """The script: a Python file with `generate(args, seed)`."""
    args: dict[str, Any] = {}
    """Passed to the script as they are."""
    seed: int = Field(default=0, ge=0)
    """Passed to the script; the only source of randomness it should use."""
    srcs: list[Files] = []
    """Files and trees that the script reads: it gets their paths as `sources`, in this order."""
    task: Task = "text_generation"
    """What the rows are for."""
    splits: list[str] = Field(default=["train", "calibration", "eval"], min_length=1)
    """The splits that the script yields: no more, no fewer."""
    completion_format: Literal["text", "json"] = "text"
    """`json`: a completion that is no JSON fails the build."""
    packages: list[str] = []
    """Distributions that the script imports beyond the standard library, `scikit-learn` for example. Their
    versions become part of the key."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Declare the generation and its validation."""
        if len(set(self.splits)) != len(self.splits):
            ctx.fail(f"`splits` names a split twice: {', '.join(self.splits)}")
        if self.completion_format == "json" and self.task != "text_generation":
            ctx.fail(f"`completion_format` says nothing about rows of task `{self.task}`")
        artifacts = [artifact for files in self.srcs for artifact in files.artifacts]
        sources = {f"sources/{index}": artifact for index, artifact in enumerate(artifacts)}
        directory = ctx.declare_tree("dataset")
        here = Path(__file__)
        ctx.run(
            tool=PythonTool(here.with_name("tool.py"), distributions=tuple(self.packages)),
            mnemonic="Dataset",
            inputs={"generator.py": self.generator.artifact} | sources,
            outputs={"dataset": directory},
            params={
                "args": self.args,
                "seed": self.seed,
                "task": self.task,
                "splits": self.splits,
                "sources": len(sources),
            },
        )
        report = ctx.declare_file("validation.json")
        ctx.run(
            tool=PythonTool(here.with_name("validate.py")),
            mnemonic="ValidateDataset",
            inputs={"dataset": directory},
            outputs={"report": report},
            params={"task": self.task, "completion_format": self.completion_format},
        )
        return [
            DefaultInfo((directory,), validations=(report,)),
            DatasetInfo(directory, tuple(self.splits), self.task),
        ]

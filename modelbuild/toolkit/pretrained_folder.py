"""The folder of a model as Hugging Face lays it out, file by file or as a tree. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelbuild.toolkit.model_tree import PICKLES
from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.safetensors_file import TensorEntry, read_entries

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_FILE = "files/"


@dataclass(frozen=True)
class ModelFolder:
    """files: name -> where it lies; files of folders inside are not among them."""

    files: Mapping[str, Path]

    @classmethod
    def of(cls, inputs: Mapping[str, Path]) -> ModelFolder:
        """The folder that the inputs of an action are: `folder`, a tree, or `files/NAME` for each file."""
        if "folder" in inputs:
            return cls({path.name: path for path in sorted(inputs["folder"].iterdir()) if path.is_file()})
        return cls(
            {name.removeprefix(_FILE): path for name, path in inputs.items() if name.startswith(_FILE)}
        )

    def read_json(self, name: str) -> dict[str, Any]:
        """A file that holds an object. Raises ToolError when it is not there, or holds something else."""
        if name not in self.files:
            raise ToolError(f"the model has no `{name}`")
        try:
            data = json.loads(self.files[name].read_text(encoding="utf-8"))
        except ValueError as error:
            raise ToolError(f"`{name}` is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise ToolError(f"`{name}` is not a JSON object")
        return data

    def config(self) -> dict[str, Any]:
        """`config.json`. Raises ToolError for a model that needs code of its own, or that is quantized."""
        keys = self.read_json("config.json")
        if "auto_map" in keys:
            raise ToolError(
                "the model needs code of its own (`auto_map` in config.json), which is not run",
                "models that transformers knows by their `model_type` can be brought in",
            )
        if keys.get("quantization_config"):
            method = keys["quantization_config"].get("quant_method")
            raise ToolError(
                f"the model is quantized already, with `{method}`",
                "bring in the model that it was made of, and use the rule `quantize`",
            )
        return keys

    def tensors(self) -> dict[str, TensorEntry]:
        """Every stored tensor, of one file or of the files that the index names, as transformers reads them.

        Raises ToolError when a file is missing, cut short, or not what the index says it is.
        """
        if WEIGHTS in self.files:
            return read_entries(self.files[WEIGHTS])
        if INDEX not in self.files:
            raise self._no_weights()
        where = self.read_json(INDEX).get("weight_map")
        if not isinstance(where, dict) or not where:
            raise ToolError(f"`{INDEX}` has no `weight_map`")
        entries: dict[str, dict[str, TensorEntry]] = {}
        for file in sorted(set(where.values())):
            if file not in self.files:
                raise ToolError(f"`{INDEX}` names `{file}`, which is not among the files")
            entries[file] = read_entries(self.files[file])
        found: dict[str, TensorEntry] = {}
        for name, file in where.items():
            if name not in entries[file]:
                raise ToolError(f"`{INDEX}` says that `{name}` is in `{file}`, and it is not")
            found[name] = entries[file][name]
        more = sorted(name for each in entries.values() for name in each if name not in found)
        if more:
            raise ToolError(f"`{more[0]}` is stored, and `{INDEX}` does not name it")
        return found

    def _no_weights(self) -> ToolError:
        pickles = sorted(name for name in self.files if Path(name).suffix.lower() in PICKLES)
        if pickles:
            return ToolError(
                f"the weights are pickled: `{pickles[0]}`; a pickle can run any code when it is loaded",
                "where you trust them, let transformers load and save them: `save_pretrained`",
            )
        if "adapter_config.json" in self.files:
            return ToolError("the folder holds an adapter, not a model", "merge it into its model first")
        return ToolError(f"the model has neither `{WEIGHTS}` nor `{INDEX}`")

"""The rule `pretrained`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from modelbuild.api import (
    MODEL_TYPES,
    TRANSFORMERS_PRELOAD,
    Artifact,
    Context,
    DefaultInfo,
    Files,
    ModelInfo,
    Provider,
    PythonTool,
    Resources,
    Rule,
    TokenizerInfo,
    complete_architecture,
    parameter_count,
    weight_tensors,
)

_HERE = Path(__file__)
_IMAGES = "image_classification"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    *("config.json", "tokenizer.model", "vocab.json", "merges.txt"),
)
"""What the tokenizer is read from; the last three only to say what is wrong."""
_BESIDE_WEIGHTS = ("config.json", "generation_config.json", "preprocessor_config.json")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Pretrained(Rule):
    """Brings in a model that somebody else trained: a folder as Hugging Face lays it out.

        load(":qwen/config.json", config = "value")

        pretrained(name = "base", srcs = glob(["qwen/**"]), architecture = config, licence = "apache-2.0")

    The target is a model as if `train` had made it, and its tokenizer: `tokenizer = ":base"` works as well
    as `model = ":base"`. Sizes, budgets and formats are checked before anything runs, because the
    architecture is known while BUILD files are read: loaded from config.json, or written down. What is
    written down and what config.json says must agree, or the action fails and shows what to write.

    Read are config.json, the safetensors files that transformers would read, tokenizer.json and its
    companions, generation_config.json; other files of the folder are no inputs. Refused are pickles, models
    that need code of their own (`auto_map`), quantized ones, and weights whose names or shapes are not those
    of the architecture. Model types: llama, mistral, qwen2, qwen3, vit.

    Weights are stored as they are, in one file; equal weights give equal bytes, however they were cut into
    files. Tokenizers are byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM). What stands in for a BOS that a
    tokenizer does not have is its EOS. Of an image classifier, what preprocessor_config.json says of
    brightness is put into the first layer, since pictures here go from 0 to 1.

    Output: a tree that transformers loads, with `pretrained.json`, which says what was left out; and a tree
    of the tokenizer.
    """

    srcs: list[Files] = Field(min_length=1)
    """The files of the folder, or a tree."""
    architecture: dict[str, Any]
    """What config.json says: all of it, or at least the keys that differ from transformers' defaults and
    change what the model computes."""
    task: Literal["text_generation", "language_modeling", "image_classification"] | None = None
    """What it is for; it must be that of the datasets it meets. By default `text_generation`, and
    `image_classification` for model type vit."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Of the stored weights; by default what `architecture` says (`dtype` or `torch_dtype`), or float32.
    Weights that would have to be rounded for it are an error; halves can become float32."""
    licence: str = ""
    """Such as `apache-2.0`; it is written into what is made of the model."""
    prompt_suffix: str = "\n"
    """Between a prompt and its completion: a line break, or what ends a question and begins an answer."""

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """Check what can be known, and declare what reads the model and its tokenizer."""
        architecture = self._architecture(ctx)
        images = architecture["model_type"] == "vit"
        task = self.task or (_IMAGES if images else "text_generation")
        if (task == _IMAGES) != images:
            ctx.fail(f"a model of type `{architecture['model_type']}` is not for `{task}`")
        files = self._files(ctx)
        if images:
            return self._image_model(ctx, architecture, files)
        dtype = self._dtype(ctx)
        tokenizer = ctx.declare_tree("tokenizer")
        if "folder" not in files and "files/tokenizer.json" not in files:
            ctx.fail(
                "`srcs` has no `tokenizer.json`",
                hint="`AutoTokenizer.from_pretrained(...).save_pretrained(...)` writes one",
            )
        ctx.run(
            tool=PythonTool(_HERE.with_name("tokenizer_tool.py")),
            mnemonic="PretrainedTokenizer",
            inputs=_chosen(files, _TOKENIZER),
            outputs={"tokenizer": tokenizer},
            params={"vocab_size": architecture["vocab_size"], "prompt_suffix": self.prompt_suffix},
        )
        model = ctx.declare_tree("model")
        size = parameter_count(architecture) * _BYTES[dtype]
        ctx.run(
            tool=PythonTool(
                _HERE.with_name("tool.py"), ("numpy", "torch", "transformers"), TRANSFORMERS_PRELOAD
            ),
            mnemonic="Pretrained",
            inputs=self._model_inputs(ctx, files) | {"tokenizer": tokenizer},
            outputs={"model": model},
            params={
                "architecture": self.architecture,
                "weights": {tensor.name: list(tensor.shape) for tensor in weight_tensors(architecture)},
                "dtype": dtype,
            },
            resources=Resources(ram=1 << 30, disk=size),
            progress=f"bringing in {self.name}",
        )
        known = TokenizerInfo(tokenizer, architecture["vocab_size"], exact=False)
        info = ModelInfo(
            weights=model,
            task=task,
            architecture=architecture,
            dtype=dtype,
            tokenizer=known,
            licence=self.licence,
        )
        return [DefaultInfo((model,)), info, known]

    def _image_model(
        self, ctx: Context, architecture: dict[str, Any], files: dict[str, Artifact]
    ) -> Sequence[Provider]:
        if self.dtype not in (None, "float32"):
            ctx.fail("an image classifier is stored in float32", hint="leave `dtype` out")
        if "folder" not in files and "files/preprocessor_config.json" not in files:
            ctx.fail(
                "`srcs` has no `preprocessor_config.json`",
                hint='it says how brightness is scaled; {"do_normalize": false} if the model takes 0 to 1',
            )
        model = ctx.declare_tree("model")
        ctx.run(
            tool=PythonTool(
                _HERE.with_name("image_tool.py"),
                ("numpy", "safetensors", "torch", "transformers"),
                TRANSFORMERS_PRELOAD,
            ),
            mnemonic="Pretrained",
            inputs=self._model_inputs(ctx, files),
            outputs={"model": model},
            params={
                "architecture": self.architecture,
                "weights": {tensor.name: list(tensor.shape) for tensor in weight_tensors(architecture)},
            },
            resources=Resources(ram=(1 << 30) + 12 * parameter_count(architecture)),
            progress=f"bringing in {self.name}",
        )
        info = ModelInfo(weights=model, task=_IMAGES, architecture=architecture, licence=self.licence)
        return [DefaultInfo((model,)), info]

    def _architecture(self, ctx: Context) -> dict[str, Any]:
        keys = self.architecture
        known = f"known are {', '.join(sorted(MODEL_TYPES))}"
        if keys.get("model_type") not in MODEL_TYPES:
            ctx.fail(f"a model of type `{keys.get('model_type')}` cannot be brought in", hint=known)
        if "auto_map" in keys:
            ctx.fail("the model needs code of its own (`auto_map`), which is not run", hint=known)
        if keys.get("quantization_config"):
            ctx.fail(
                "the model is quantized already",
                hint="bring in the model that it was made of, and use the rule `quantize`",
            )
        return complete_architecture(keys)

    def _dtype(self, ctx: Context) -> str:
        """Of the weights, as they will be stored."""
        dtype = self.dtype or self.architecture.get("dtype") or self.architecture.get("torch_dtype")
        dtype = str(dtype or "float32").removeprefix("torch.")
        if dtype not in _BYTES:
            ctx.fail(f"weights of type `{dtype}` are not supported", hint=f"known are {', '.join(_BYTES)}")
        return dtype

    def _files(self, ctx: Context) -> dict[str, Artifact]:
        """Logical name -> artifact: a tree, or the files that lie where config.json lies."""
        artifacts = list(dict.fromkeys(each for source in self.srcs for each in source.artifacts))
        if any(each.kind == "tree" for each in artifacts):
            if len(artifacts) > 1:
                ctx.fail("`srcs` has a tree and other files", hint="give the one tree, or all files")
            return {"folder": artifacts[0]}
        roots = [_folder(each) for each in artifacts if each.basename == "config.json"]
        if not roots:
            ctx.fail("`srcs` has no `config.json`", hint='for example srcs = glob(["qwen/**"])')
        top = min(roots, key=lambda folder: folder.count("/") + bool(folder))
        return {f"files/{each.basename}": each for each in artifacts if _folder(each) == top}

    def _model_inputs(self, ctx: Context, files: dict[str, Artifact]) -> dict[str, Artifact]:
        """What the model is read from; files that nobody reads are no inputs, however large they are."""
        names = {each.basename for each in files.values()}
        if _WEIGHTS in names:
            return _chosen(files, (*_BESIDE_WEIGHTS, _WEIGHTS))
        if "folder" not in files and _INDEX not in names:
            pickles = sorted(name for name in names if name.endswith(_PICKLES))
            if pickles:
                ctx.fail(
                    f"its weights are pickled (`{pickles[0]}`); a pickle can run any code when it is loaded",
                    hint="where you trust them, let transformers load and save them: `save_pretrained`",
                )
            if "adapter_config.json" in names:
                ctx.fail("`srcs` holds an adapter, not a model", hint="merge it into its model first")
            ctx.fail(f"`srcs` has neither `{_WEIGHTS}` nor `{_INDEX}`")
        shards = [name for name in names if name.endswith(".safetensors")]
        return _chosen(files, (*_BESIDE_WEIGHTS, _INDEX, *shards))


def _chosen(files: dict[str, Artifact], names: Sequence[str]) -> dict[str, Artifact]:
    """Those of these names, or the whole tree."""
    return {key: each for key, each in files.items() if key == "folder" or each.basename in names}


def _folder(artifact: Artifact) -> str:
    return artifact.path.rpartition("/")[0]

"""Pruning: smaller dense models (structured) or zeros (unstructured), for every task. Imports torch.

Structured pruning removes MLP channels, attention heads (whole key-value groups) and layers, the same number
in every layer, so that the result is an ordinary model with a smaller config. What matters least goes:

    magnitude   squared norm of all weights of the group (Han et al. 2015; Li et al. 2017)
    taylor      |sum of weight x gradient| over the group (Molchanov et al. 2019)
    activation  size of what the group computes on data times its outgoing weights (as Wanda does for
                single weights, Sun et al. 2023); for layers, how much the hidden state turns (block
                influence, Men et al. 2024)

Recovery then trains what is left on KL(parent || pruned).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from modelbuild.toolkit.model_tree import weight_files
from modelbuild.toolkit.quantization import linear_names
from modelbuild.toolkit.request import Request, ToolError
from modelbuild.toolkit.seeding import seed_torch
from modelbuild.toolkit.task import Batch, Examples, Task
from modelbuild.toolkit.training import Settings, fit, save_trained

_CALIBRATION_BATCH = 16


@dataclass(frozen=True)
class Family:
    """Where the prunable parts of a `model_type` are. Names are relative to one layer.

    layers: the list of layers. mlp_in: linear layers whose rows are MLP channels; mlp_out: the one whose
    columns are. query, key_value, attention_out: likewise for heads; no query, no pruning of heads, as for
    models whose config has no width of a head.
    """

    layers: str
    mlp_in: tuple[str, ...]
    mlp_out: str
    query: tuple[str, ...] = ()
    key_value: tuple[str, ...] = ()
    attention_out: str = ""


_LLAMA = Family(
    layers="model.layers",
    mlp_in=("mlp.gate_proj", "mlp.up_proj"),
    mlp_out="mlp.down_proj",
    query=("self_attn.q_proj",),
    key_value=("self_attn.k_proj", "self_attn.v_proj"),
    attention_out="self_attn.o_proj",
)
FAMILIES: Mapping[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "vit": Family(layers="vit.layers", mlp_in=("mlp.fc1",), mlp_out="mlp.fc2"),
}


def kept(count: int, ratio: float, multiple: int = 1) -> int:
    """How many of `count` stay when `ratio` of them goes: rounded up to a multiple, 0 when nothing stays.

    rules/prune/rule.py predicts the same numbers.
    """
    exact = round(count * (1 - ratio), 6)
    return min(count, -int(-exact // multiple) * multiple)


def run_pruning(request: Request, task: Task) -> None:
    """The `prune` action: inputs `model` and, where data is needed, `dataset`; output `model`."""
    params = request.params
    seed_torch(int(params["seed"]), request.threads)
    source = request.inputs["model"]
    weight_files(source)
    parent = task.load(source)
    examples: Examples | None = None
    dataset = request.inputs.get("dataset")
    if dataset is not None:
        length = int(params["sequence_length"])
        examples = task.examples(dataset, "train", source, sequence_length=length)
    calibration = _batches(task, examples, int(params["samples"])) if examples is not None else []
    pruned = deepcopy(parent)
    masks: dict[str, torch.Tensor] = {}
    if params["method"] == "structured":
        pruned = structured(task, pruned, params, calibration)
    else:
        masks = sparse_masks(task, pruned, params, calibration)
    summary: dict[str, Any] = {"steps": 0}
    if int(params["recovery_steps"]):
        assert examples is not None
        summary = _recover(request, task, parent, pruned, masks, examples)
    _apply(pruned, masks)
    summary["pruning"] = {
        "method": params["method"],
        "parameters_before": sum(p.numel() for p in parent.parameters()),
        "zeros": sum(int((mask == 0).sum()) for mask in masks.values()),
    }
    save_trained(task, pruned, request.outputs["model"], source, summary)


def structured(
    task: Task, model: torch.nn.Module, params: Mapping[str, Any], calibration: Sequence[Batch]
) -> torch.nn.Module:
    """The smaller model. Raises ToolError for a family or a ratio that cannot be."""
    config: Any = model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        known = ", ".join(sorted(FAMILIES))
        raise ToolError(f"a model of type `{config.model_type}` cannot be pruned", f"known are {known}")
    ratio, importance = params["ratio"], params["importance"]
    new = deepcopy(config)
    layers = list(model.get_submodule(family.layers))  # type: ignore[call-overload]
    if ratio.get("layers"):
        count = kept(len(layers), ratio["layers"])
        scores = _layer_scores(task, model, family, importance, calibration)
        stay = _best(torch.tensor(scores), count, "layers").tolist()
        chosen = torch.nn.ModuleList([layers[i] for i in stay])
        _replace(model, family.layers, chosen)
        if getattr(new, "layer_types", None):
            model.config.layer_types = new.layer_types = [new.layer_types[i] for i in stay]  # type: ignore[union-attr]
        model.config.num_hidden_layers = new.num_hidden_layers = count  # type: ignore[union-attr]
        for index, layer in enumerate(chosen):
            _renumber(layer, index)
        layers = list(chosen)
    measured = _measure(task, model, family, layers, importance, calibration)
    if ratio.get("mlp"):
        count = kept(int(new.intermediate_size), ratio["mlp"], int(params["multiple"]))
        for index, layer in enumerate(layers):
            keep = _best(_channel_scores(layer, family, measured, index), count, "MLP channels")
            for name in family.mlp_in:
                _slice(layer.get_submodule(name), 0, keep)
            _slice(layer.get_submodule(family.mlp_out), 1, keep)
        new.intermediate_size = count
    if ratio.get("heads"):
        if not family.query:
            raise ToolError(
                f"heads of a `{config.model_type}` cannot be pruned: its config has no `head_dim`"
            )
        groups = int(config.num_key_value_heads)
        per_group, dim = int(config.num_attention_heads) // groups, _head_dim(config)
        count = kept(groups, ratio["heads"])
        if count and config.hidden_size % (count * per_group):
            raise ToolError(f"{count * per_group} heads do not divide `hidden_size` {config.hidden_size}")
        for index, layer in enumerate(layers):
            keep = _best(_group_scores(layer, family, measured, index, groups), count, "attention heads")
            wide = _spread(keep, per_group * dim)
            for name in family.query:
                _slice(layer.get_submodule(name), 0, wide)
            for name in family.key_value:
                _slice(layer.get_submodule(name), 0, _spread(keep, dim))
            _slice(layer.get_submodule(family.attention_out), 1, wide)
        new.num_key_value_heads, new.num_attention_heads, new.head_dim = count, count * per_group, dim
    result: torch.nn.Module = type(model)(new)
    result.load_state_dict(model.state_dict())
    return result.eval()


def sparse_masks(
    task: Task, model: torch.nn.Module, params: Mapping[str, Any], calibration: Sequence[Batch]
) -> dict[str, torch.Tensor]:
    """Linear layer -> mask of 1 and 0. magnitude compares within a layer, wanda within a row."""
    names, sparsity = linear_names(model), float(params["sparsity"])
    norms: dict[str, torch.Tensor] = {}
    if params["method"] == "wanda":
        squares: dict[str, torch.Tensor] = {}

        def remember(name: str) -> Callable[[Any, Any], None]:
            def hook(_module: Any, inputs: Any) -> None:
                total = inputs[0].detach().flatten(0, -2).square().sum(0)
                squares[name] = squares[name] + total if name in squares else total

            return hook

        with _hooks([(model.get_submodule(name), remember(name)) for name in names]):
            _forward(task, model, calibration)
        norms = {name: squares[name].sqrt() for name in names}
    masks = {}
    for name in names:
        weight = model.get_submodule(name).weight
        assert isinstance(weight, torch.Tensor)
        size = weight.detach().abs() * norms.get(name, torch.ones(1))
        flat = size if params["method"] == "wanda" else size.reshape(1, -1)
        order = flat.argsort(dim=1, stable=True)[:, : int(flat.shape[1] * sparsity)]
        masks[name] = torch.ones_like(flat).scatter_(1, order, 0.0).reshape(weight.shape)
    return masks


def _recover(
    request: Request,
    task: Task,
    parent: torch.nn.Module,
    pruned: torch.nn.Module,
    masks: Mapping[str, torch.Tensor],
    examples: Examples,
) -> dict[str, Any]:
    settings = Settings(
        steps=int(request.params["recovery_steps"]),
        batch_size=int(request.params["batch_size"]),
        learning_rate=float(request.params["learning_rate"]),
        seed=int(request.params["seed"]),
    )

    def loss(batch: Batch, _: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, float]]:
        _apply(pruned, masks)
        with torch.no_grad():
            theirs = torch.log_softmax(task.forward(parent, batch).logits, -1)
        ours = torch.log_softmax(task.forward(pruned, batch).logits, -1)
        return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True), {}

    history = fit(pruned, task, examples, settings, loss, request.scratch)
    return history.summary(settings, task.unit)


def _apply(model: torch.nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_submodule(name).weight.mul_(mask)  # type: ignore[operator]


@dataclass(frozen=True)
class _Measured:
    """importance `activation`: (layer, linear layer) -> mean size of each of its inputs; else empty."""

    importance: str
    inputs: Mapping[tuple[int, str], torch.Tensor]


def _measure(
    task: Task,
    model: torch.nn.Module,
    family: Family,
    layers: Sequence[torch.nn.Module],
    importance: str,
    calibration: Sequence[Batch],
) -> _Measured:
    sums: dict[tuple[int, str], torch.Tensor] = {}
    if importance == "taylor":
        model.zero_grad()
        for batch in calibration:
            functional.cross_entropy(task.forward(model, batch).logits, batch.targets).backward()  # type: ignore[no-untyped-call]
    elif importance == "activation":
        outs = [name for name in (family.mlp_out, family.attention_out) if name]

        def remember(key: tuple[int, str]) -> Callable[[Any, Any], None]:
            def hook(_module: Any, inputs: Any) -> None:
                total = inputs[0].detach().abs().flatten(0, -2).sum(0)
                sums[key] = sums[key] + total if key in sums else total

            return hook

        with _hooks(
            [(layer.get_submodule(n), remember((i, n))) for i, layer in enumerate(layers) for n in outs]
        ):
            _forward(task, model, calibration)
    return _Measured(importance, sums)


def _weight_scores(module: torch.nn.Module, dim: int, importance: str) -> torch.Tensor:
    """Score of each row (dim 0) or column (dim 1)."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    other = 1 - dim
    if importance == "taylor":
        assert weight.grad is not None
        return (weight.detach() * weight.grad).sum(other)
    return weight.detach().square().sum(other)


def _channel_scores(layer: torch.nn.Module, family: Family, measured: _Measured, index: int) -> torch.Tensor:
    out = layer.get_submodule(family.mlp_out)
    if measured.importance == "activation":
        return measured.inputs[index, family.mlp_out] * _weight_scores(out, 1, "magnitude").sqrt()
    total = _weight_scores(out, 1, measured.importance)
    for name in family.mlp_in:
        total = total + _weight_scores(layer.get_submodule(name), 0, measured.importance)
    return total.abs()


def _group_scores(
    layer: torch.nn.Module, family: Family, measured: _Measured, index: int, groups: int
) -> torch.Tensor:
    out = layer.get_submodule(family.attention_out)
    if measured.importance == "activation":
        sizes = measured.inputs[index, family.attention_out] * _weight_scores(out, 1, "magnitude").sqrt()
        return sizes.reshape(groups, -1).sum(1)
    total = _weight_scores(out, 1, measured.importance).reshape(groups, -1).sum(1)
    for name in (*family.query, *family.key_value):
        rows = _weight_scores(layer.get_submodule(name), 0, measured.importance)
        total = total + rows.reshape(groups, -1).sum(1)
    return total.abs()


def _layer_scores(
    task: Task, model: torch.nn.Module, family: Family, importance: str, calibration: Sequence[Batch]
) -> list[float]:
    """How much each layer matters; `taylor` and `magnitude` sum over its weights."""
    layers = list(model.get_submodule(family.layers))  # type: ignore[call-overload]
    if importance != "activation":
        measured = _measure(task, model, family, layers, importance, calibration)
        outs = [name for name in (family.mlp_out, family.attention_out) if name]
        totals = []
        for layer in layers:
            parts = [_weight_scores(layer.get_submodule(n), 1, measured.importance).sum() for n in outs]
            totals.append(float(torch.stack(parts).sum().abs()))
        return totals
    turned = [0.0] * len(layers)
    with torch.inference_mode():
        for batch in calibration:
            states = task.forward(model, batch, hidden=True).hidden
            for index in range(len(layers)):
                same = functional.cosine_similarity(states[index], states[index + 1], dim=-1)
                turned[index] += float((1 - same).sum())
    return turned


def _best(scores: torch.Tensor, count: int, what: str) -> torch.Tensor:
    if count < 1:
        raise ToolError(f"the ratio leaves no {what}", "lower `ratio`")
    order = torch.sort(scores.double(), descending=True, stable=True).indices
    return order[:count].sort().values


def _spread(groups: torch.Tensor, width: int) -> torch.Tensor:
    return (groups[:, None] * width + torch.arange(width)).reshape(-1)


def _slice(module: torch.nn.Module, dim: int, keep: torch.Tensor) -> None:
    assert isinstance(module, torch.nn.Linear)
    module.weight = torch.nn.Parameter(module.weight.detach().index_select(dim, keep).clone())
    if dim == 0 and module.bias is not None:
        module.bias = torch.nn.Parameter(module.bias.detach()[keep].clone())
    module.out_features, module.in_features = module.weight.shape


def _replace(model: torch.nn.Module, path: str, module: torch.nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(model.get_submodule(owner), name, module)


def _renumber(layer: torch.nn.Module, index: int) -> None:
    """Attention knows its number, which names its place in the KV cache."""
    for module in layer.modules():
        if hasattr(module, "layer_idx"):
            module.layer_idx = index  # type: ignore[assignment]


def _head_dim(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _batches(task: Task, examples: Examples, samples: int) -> list[Batch]:
    count = min(samples, len(examples.lengths))
    return [
        task.batch(examples, range(start, min(start + _CALIBRATION_BATCH, count)))
        for start in range(0, count, _CALIBRATION_BATCH)
    ]


def _forward(task: Task, model: torch.nn.Module, batches: Sequence[Batch]) -> None:
    with torch.inference_mode():
        for batch in batches:
            task.forward(model, batch)


@contextmanager
def _hooks(pairs: Sequence[tuple[torch.nn.Module, Callable[[Any, Any], None]]]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook) for module, hook in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

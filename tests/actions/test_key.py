"""Action keys: every field is hashed or listed as left out; known keys do not move."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.actions.action import Action, Resources
from modelbuild.actions.key import HASHED_FIELDS, LEFT_OUT_FIELDS, action_key, canonical
from modelbuild.actions.result import OutputDigest
from modelbuild.artifact import Artifact
from modelbuild.digest import digest_bytes
from modelbuild.label import parse_label
from modelbuild.runner import Runner
from modelbuild.testing import assert_golden
from modelbuild.tool import PythonTool, ShellTool, TreeTool, WriteTool

IDENTITY = "a" * 64
INPUTS = {"in/model": OutputDigest("tree", digest_bytes(b"model"))}


def make_action(**changes: object) -> Action:
    fields: dict[str, object] = {
        "tool": PythonTool(Path("/tool.py"), ("torch",)),
        "params": {"bits": 4, "scheme": "gptq", "seed": 0},
        "inputs": {"in/model": Artifact("targets/pruned/model", "tree")},
        "outputs": {"out/model": Artifact("targets/int4/model", "tree")},
        "platform": ("//platforms:aarch64",),
        "threads": 2,
        "owner": parse_label("//targets:int4"),
        "mnemonic": "Quantize",
    }
    return Action(**{**fields, **changes})  # type: ignore[arg-type]


def test_every_field_of_an_action_is_hashed_or_left_out_with_a_reason() -> None:
    fields = {field.name for field in dataclasses.fields(Action)}
    assert fields == HASHED_FIELDS | LEFT_OUT_FIELDS.keys()
    assert not HASHED_FIELDS & LEFT_OUT_FIELDS.keys()
    assert all(LEFT_OUT_FIELDS.values())


HASHED_CHANGES = {
    "tool": ShellTool(),
    "params": {"bits": 3, "scheme": "gptq", "seed": 0},
    "outputs": {"out/other": Artifact("targets/int4/model", "tree")},
    "platform": (),
    "threads": 1,
    "runner": Runner("qemu-user", "aarch64"),
}
LEFT_OUT_CHANGES = {
    "owner": parse_label("//other:name"),
    "mnemonic": "Other",
    "progress": "quantizing",
    "declared_at": "targets/BUILD.models:9",
    "resources": Resources(ram=1 << 40),
    "determinism": "none",
    "resumable": True,
    "volatile": ("out/timing",),
}


@pytest.mark.parametrize("field", sorted(HASHED_FIELDS - {"inputs"}))
def test_a_hashed_field_changes_the_key(field: str) -> None:
    changed = action_key(make_action(**{field: HASHED_CHANGES[field]}), IDENTITY, INPUTS)
    assert changed.sha256 != action_key(make_action(), IDENTITY, INPUTS).sha256


@pytest.mark.parametrize("field", sorted(LEFT_OUT_FIELDS))
def test_a_field_that_is_left_out_does_not(field: str) -> None:
    changed = action_key(make_action(**{field: LEFT_OUT_CHANGES[field]}), IDENTITY, INPUTS)
    assert changed.sha256 == action_key(make_action(), IDENTITY, INPUTS).sha256


def test_artifact_paths_are_not_in_the_key_but_their_names_and_digests_are() -> None:
    moved = make_action(inputs={"in/model": Artifact("elsewhere/model", "tree")})
    base = action_key(make_action(), IDENTITY, INPUTS)
    assert action_key(moved, IDENTITY, INPUTS) == base
    other = {"in/model": OutputDigest("tree", digest_bytes(b"other"))}
    assert action_key(make_action(), IDENTITY, other).components["inputs"] != base.components["inputs"]
    renamed = {"in/parent": INPUTS["in/model"]}
    assert action_key(make_action(), IDENTITY, renamed).sha256 != base.sha256
    executable = {"in/model": OutputDigest("tree", digest_bytes(b"model"), executable=True)}
    assert action_key(make_action(), IDENTITY, executable).sha256 != base.sha256


def test_a_device_is_in_the_key_and_its_address_is_not() -> None:
    def key(runner: Runner | None) -> str:
        return action_key(make_action(runner=runner), IDENTITY, INPUTS).sha256

    here, there = Runner("ssh", "aarch64", address="pi@10.0.0.2"), Runner("ssh", "aarch64", address="x@y:22")
    assert key(here) == key(there)
    kinds = [None, here, Runner("ssh", "armv7"), Runner("qemu-user", "aarch64")]
    assert len({key(each) for each in kinds}) == len(kinds)


def test_one_change_moves_one_component() -> None:
    base = action_key(make_action(), IDENTITY, INPUTS).components
    other = action_key(make_action(params={"bits": 8}), IDENTITY, INPUTS).components
    assert {name for name in base if base[name] != other[name]} == {"command"}
    other = action_key(make_action(), "b" * 64, INPUTS).components
    assert {name for name in base if base[name] != other[name]} == {"tool"}
    other = action_key(make_action(), IDENTITY, INPUTS, salt="s").components
    assert {name for name in base if base[name] != other[name]} == {"schema"}


def test_known_keys() -> None:
    actions = {
        "python": make_action(),
        "shell": make_action(tool=ShellTool(), params={"command": "echo"}),
        "write": make_action(tool=WriteTool(), params={"content": "é\n", "executable": False}),
        "tree": make_action(tool=TreeTool(), params={}),
        "nested": make_action(params={"a": [1, 2.5, None, True, {"b": "c"}]}),
    }
    keys = {name: dataclasses.asdict(action_key(a, IDENTITY, INPUTS)) for name, a in actions.items()}
    assert_golden("action_keys.json", json.dumps(keys, indent=1, sort_keys=True) + "\n")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def tagged(value: object) -> object:
    """`value` with types made visible, so that 1, 1.0 and True differ as they do in the encoding."""
    if isinstance(value, list):
        return ["list", *map(tagged, value)]
    if isinstance(value, dict):
        return {key: tagged(inner) for key, inner in value.items()}
    return [type(value).__name__, repr(value)]


@given(JSON, JSON)
def test_different_values_never_encode_alike(a: object, b: object) -> None:
    assert (canonical(a) == canonical(b)) == (tagged(a) == tagged(b))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1: 2}, {1, 2}, b"x", object()])
def test_what_is_no_json_cannot_be_a_parameter(value: object) -> None:
    with pytest.raises(TypeError):
        canonical(value)

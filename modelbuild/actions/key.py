"""Action keys: the SHA-256 of a canonical encoding of components, each also kept as its own digest.

| component | what is in it |
|---|---|
| schema | version of the encoding, and the workspace's salt |
| command | kind of tool, parameters, threads, logical output names and kinds, kind and CPU of the runner |
| tool | digest of the tool's own sources and of its environment |
| inputs | Merkle root over logical name -> kind, digest, executable |
| platform | the constraint values that the rule said the action depends on |
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelbuild.actions.action import Action
from modelbuild.actions.result import OutputDigest

KEY_SCHEMA = 1
"""Raised whenever the encoding, the meaning of a component or the surroundings of an action change."""

HASHED_FIELDS = frozenset({"tool", "params", "inputs", "outputs", "platform", "threads", "runner"})
LEFT_OUT_FIELDS: Mapping[str, str] = {
    "owner": "a renamed target rebuilds nothing",
    "mnemonic": "shown to people only",
    "progress": "shown to people only",
    "declared_at": "a moved or commented BUILD line rebuilds nothing",
    "resources": "how much an action needs does not change what it makes",
    "determinism": "how results are compared does not change what an action makes",
    "resumable": "a resumed run gives the bytes of an uninterrupted one",
    "volatile": "how results are compared does not change what an action makes",
}
"""Every field of Action is in one of these two; a test compares them with the class."""


@dataclass(frozen=True, slots=True)
class ActionKey:
    """The key and the digests it is made of, component name -> 64 hex digits."""

    sha256: str
    components: Mapping[str, str]


def action_key(
    action: Action, tool_identity: str, inputs: Mapping[str, OutputDigest], salt: str = ""
) -> ActionKey:
    """The key of `action`, given its tool's identity and the digest of each input by logical name."""
    components = {
        "schema": _schema(salt),
        "command": _sha256(
            [
                type(action.tool).__name__,
                action.params,
                action.threads,
                [[name, artifact.kind] for name, artifact in sorted(action.outputs.items())],
                *_runner(action),
            ]
        ),
        "tool": tool_identity,
        "inputs": _sha256(
            [
                [name, value.kind, value.digest.sha256, value.executable]
                for name, value in sorted(inputs.items())
            ]
        ),
        "platform": _platform(action.platform),
    }
    return ActionKey(_sha256(components), components)


def canonical(value: Any) -> bytes:
    """A type-tagged, length-prefixed encoding: different values never encode alike.

    Raises TypeError for anything that is not plain JSON data, and for floats that are not numbers.
    """
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


@functools.cache
def _schema(salt: str) -> str:
    return _sha256(["modelbuild-action", KEY_SCHEMA, salt])


def _runner(action: Action) -> list[Any]:
    """Nothing for what runs here. What a runner is made of is in the tool's identity, its address nowhere."""
    runner = action.runner
    return [["runner", runner.kind, runner.cpu]] if runner else []


@functools.cache
def _platform(constraints: tuple[str, ...]) -> str:
    return _sha256(list(constraints))


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical(value)).hexdigest()


def _encode(value: Any, parts: list[bytes]) -> None:
    if isinstance(value, str):
        data = value.encode()
        parts.append(b"s%d:%b" % (len(data), data))
    elif value is None:
        parts.append(b"n")
    elif isinstance(value, bool):
        parts.append(b"t" if value else b"f")
    elif isinstance(value, int):
        data = str(value).encode()
        parts.append(b"i%d:%b" % (len(data), data))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value} cannot be a parameter of an action")
        parts.append(b"d" + struct.pack(">d", value))
    elif isinstance(value, list | tuple):
        parts.append(b"l%d:" % len(value))
        for item in value:
            _encode(item, parts)
    elif isinstance(value, Mapping):
        parts.append(b"m%d:" % len(value))
        for key in sorted(value):
            if not isinstance(key, str):
                raise TypeError(f"a parameter's key is a string, not {key!r}")
            _encode(key, parts)
            _encode(value[key], parts)
    else:
        raise TypeError(f"{type(value).__name__} cannot be a parameter of an action")

"""What a Python tool finds in `request.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelbuild.actions.action import Action

REQUEST = "request.json"


def tool_request(action: Action, scratch: str | None, arguments: tuple[str, ...] = ()) -> dict[str, Any]:
    """What `request.json` holds; paths are relative to the action's directory."""
    return {
        "params": _plain(action.params),
        "inputs": {name.removeprefix("in/"): name for name in action.inputs},
        "outputs": {name.removeprefix("out/"): name for name in action.outputs},
        "scratch": scratch,
        "threads": action.threads,
        "arguments": list(arguments),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value

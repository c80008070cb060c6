"""explain: why an action runs, from what is known of its last run. Pure; the cache is not asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelbuild.cache.trace import TraceRow
from modelbuild.tree import Tree

TreeLoader = Callable[[str], Tree | None]
"""From the SHA-256 of a manifest to the tree, or None when it is no longer there or is no manifest."""

NEVER_BUILT = "never built here"
CHECKED = "checked: rerun to compare"

_ORDER = ("schema", "inputs", "tool", "command", "platform")
_SHOWN = 3
_VALUE_WIDTH = 48


@dataclass(frozen=True, slots=True)
class Change:
    """A component that changed, and what changed in it: `torch 2.12.0 -> 2.13.0`."""

    component: str
    items: tuple[str, ...]

    def __str__(self) -> str:
        """`tool: torch 2.12.0 -> 2.13.0, tool.py sha256:ab12.. -> cd34..`."""
        return f"{self.component}: {', '.join(self.items)}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an action runs: what changed, or in `summary`, why it runs although nothing did."""

    summary: str = ""
    changes: tuple[Change, ...] = ()
    unchanged: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line: `inputs: dataset sha256:ab12.. -> cd34..; tool, command, platform unchanged`."""
        parts = [self.summary] if self.summary else []
        parts += [str(change) for change in self.changes]
        if self.unchanged:
            parts.append(f"{', '.join(self.unchanged)} unchanged")
        return "; ".join(parts)


def explain(
    previous: TraceRow | None,
    components: Mapping[str, str],
    detail: Mapping[str, Any],
    *,
    load_tree: TreeLoader | None = None,
    vanished: Sequence[str] = (),
    checked: bool = False,
) -> Reason:
    """Compares an action with its last run. For `detail`, see TraceRow.

    load_tree: names the changed files of trees. vanished: logical names of outputs that the cache lost.
    checked: the action runs only to compare results.
    """
    if checked:
        return Reason(CHECKED)
    if previous is None:
        return Reason(NEVER_BUILT)
    changed = [name for name in _ORDER if previous.components.get(name) != components.get(name)]
    unchanged = tuple(name for name in _ORDER[1:] if name not in changed)
    if not changed:
        if vanished:
            names = ", ".join(f"`{_input_name(name)}`" for name in vanished)
            return Reason(f"{names} vanished from the cache", (), unchanged)
        if previous.outcome == "failed":
            return Reason("failed last time", (), unchanged)
        return Reason("its result is no longer in the cache", (), unchanged)
    changes = tuple(Change(name, _items(name, previous.detail, detail, load_tree)) for name in changed)
    return Reason("", changes, unchanged)


def _items(
    component: str, old: Mapping[str, Any], new: Mapping[str, Any], load_tree: TreeLoader | None
) -> tuple[str, ...]:
    if component == "inputs":
        found = _input_changes(old.get("inputs"), new.get("inputs"), load_tree)
    elif component == "tool":
        found = _tool_changes(old.get("tool"), new.get("tool"))
    elif component == "command":
        found = _command_changes(old, new)
    elif component == "platform":
        found = _set_changes(old.get("platform"), new.get("platform"))
    else:
        found = iter(("the encoding of keys, or the workspace's salt",))
    items = tuple(found)
    if not items:
        return ("changed",)
    if len(items) > _SHOWN:
        return (*items[:_SHOWN], f"and {len(items) - _SHOWN} more")
    return items


def _input_changes(old: Any, new: Any, load_tree: TreeLoader | None) -> Iterator[str]:
    for name, before, after in _differences(old, new):
        before_sha, after_sha = _sha256(before), _sha256(after)
        shown = _input_name(name)
        if before_sha is None or after_sha is None:
            sha = after_sha or before_sha or ""
            yield f"{'added' if before_sha is None else 'removed'} {shown} sha256:{sha[:4]}.."
        elif before_sha != after_sha:
            yield f"{shown} {_digests(before_sha, after_sha)}{_files(before_sha, after_sha, load_tree)}"
        elif _kind(before) != _kind(after):
            yield f"{shown} is a {_kind(after)}, was a {_kind(before)}"
        else:
            yield f"{shown} is {'now' if _is_executable(after) else 'no longer'} executable"


def _files(before: str, after: str, load_tree: TreeLoader | None) -> str:
    """` (1 of 4 files: train.jsonl)`, or nothing when it is not known."""
    old, new = (load_tree(before), load_tree(after)) if load_tree else (None, None)
    if old is None or new is None:
        return ""
    old_files = {file.path: file for file in old.files}
    new_files = {file.path: file for file in new.files}
    every = old_files.keys() | new_files.keys()
    names = sorted(path for path in every if old_files.get(path) != new_files.get(path))
    shown = ", ".join(names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f" ({len(names)} of {len(every)} {'file' if len(every) == 1 else 'files'}: {shown}{more})"


def _tool_changes(old: Any, new: Any) -> Iterator[str]:
    for part, before, after in _differences(old, new):
        if isinstance(before, str) and isinstance(after, str):
            shown = (
                _digests(before, after)
                if _is_sha256(before) and _is_sha256(after)
                else f"{before} -> {after}"
            )
            yield f"{part} {shown}"
            continue
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            yield _changed_value(part, before, after)
            continue
        for name, old_value, new_value in _differences(before, after):
            if old_value is None:
                yield f"added {name}{_version(new_value)}"
            elif new_value is None:
                yield f"removed {name}{_version(old_value)}"
            elif _is_sha256(old_value) and _is_sha256(new_value):
                yield f"{name} {_digests(old_value, new_value)}"
            else:
                yield f"{name} {old_value} -> {new_value}"


def _command_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    yield from _parameter_changes("", old.get("params"), new.get("params"))
    if "threads" in old and old["threads"] != new.get("threads"):
        yield _changed_value("threads", old["threads"], new.get("threads"))
    if "outputs" in old:
        for name, before, after in _differences(old["outputs"], new.get("outputs")):
            shown = _input_name(name)
            if before is None or after is None:
                yield f"{'added' if before is None else 'removed'} output {shown}"
            else:
                yield f"output {shown} is a {after}, was a {before}"


def _parameter_changes(prefix: str, old: Any, new: Any) -> Iterator[str]:
    for name, before, after in _differences(old, new):
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _parameter_changes(f"{prefix}{name}.", before, after)
        else:
            yield _changed_value(f"{prefix}{name}", before, after)


def _set_changes(old: Any, new: Any) -> Iterator[str]:
    before, after = set(old or ()), set(new or ())
    gone, come = sorted(before - after), sorted(after - before)
    if len(gone) == len(come) == 1:
        yield f"{gone[0]} -> {come[0]}"
        return
    yield from (f"added {value}" for value in come)
    yield from (f"removed {value}" for value in gone)


def _differences(old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """(name, old, new) of what differs between two mappings; None stands for absent."""
    before = old if isinstance(old, Mapping) else {}
    after = new if isinstance(new, Mapping) else {}
    for name in sorted(before.keys() | after.keys()):
        old_value, new_value = _plain(before.get(name)), _plain(after.get(name))
        if old_value != new_value:
            yield name, old_value, new_value


def _plain(value: Any) -> Any:
    """As it comes back from JSON, so that a tuple equals the list it was stored as."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _changed_value(name: str, old: Any, new: Any) -> str:
    before, after = _cut_alike(_text(old), _text(new))
    return f"{name} {before} -> {after}"


def _text(value: Any) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _cut_alike(old: str, new: str) -> tuple[str, str]:
    """Both shortened around the first place where they differ."""
    if max(len(old), len(new)) <= _VALUE_WIDTH:
        return old, new
    same = next(
        (i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new))
    )
    start = max(0, same - _VALUE_WIDTH // 3)

    def cut(text: str) -> str:
        end = start + _VALUE_WIDTH
        return f"{'..' if start else ''}{text[start:end]}{'..' if end < len(text) else ''}"

    return cut(old), cut(new)


def _digests(before: str, after: str) -> str:
    width = next((n for n in range(4, 64) if before[:n] != after[:n]), 64)
    return f"sha256:{before[:width]}.. -> {after[:width]}.."


def _version(value: Any) -> str:
    return "" if _is_sha256(value) else f" {value}"


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef")


def _sha256(value: Any) -> str | None:
    """Of an input as the detail holds it: [kind, sha256] or sha256."""
    last = value[1] if isinstance(value, list) and len(value) > 1 else value
    return last if isinstance(last, str) else None


def _kind(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) and value else "file"


def _is_executable(value: Any) -> bool:
    return isinstance(value, list) and value[2:] == [True]


def _input_name(name: str) -> str:
    return name.removeprefix("in/").removeprefix("out/")

"""Fills the marked blocks of documents from benchmarks/results, so that no figure in them is typed by hand.

    python -m benchmarks.readme            # rewrite the blocks
    python -m benchmarks.readme --check    # exit 1 when a block is not what the files say

A block is what stands between `<!-- filled: NAME -->` and `<!-- end filled -->`. benchmarks.collect, formats,
graph_speed and matrix write the files.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs/guides/sizes.md")
_BLOCK = re.compile(r"(<!-- filled: ([\w-]+) -->\n).*?(<!-- end filled -->)", re.DOTALL)
_SHOWN_TARGETS = ("missions", "tokenizer", "teacher", "student", "pruned", "int4", "drone-int4")
_NAMES = {"modelbuild": "modelbuild", "bazel": "Bazel", "dvc": "DVC", "snakemake": "Snakemake"}


def _read(name: str) -> Any:
    path = RESULTS / name
    return json.loads(path.read_text()) if path.exists() else None


def _not_measured(command: str) -> str:
    return f"Not recorded yet; `{command}` does it.\n"


def speed_table() -> str:
    """Cold, null and leaf builds beside peers, in seconds."""
    report: Mapping[str, Any] | None = _read("graph_speed.json")
    if not report:
        return _not_measured("python -m benchmarks.graph_speed --json benchmarks/results/graph_speed.json")
    sizes = sorted((size for size in report if size.isdecimal()), key=int)
    tools = list(dict.fromkeys(tool for size in sizes for tool in report[size]))
    head = (
        "| seconds: null / one leaf changed / cold | "
        + " | ".join(f"{int(s):,} actions" for s in sizes)
        + " |"
    )
    lines = [head, "|---" * (len(sizes) + 1) + "|"]
    for tool in tools:
        cells = [_times(report[size].get(tool)) for size in sizes]
        lines.append(f"| {_NAMES.get(tool, tool)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + _machine_line()


def _times(row: Mapping[str, float] | None) -> str:
    return " / ".join(_seconds(row[name]) for name in ("null", "leaf", "cold")) if row else "not run"


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _machine_line() -> str:
    machine: Mapping[str, Any] | None = _read("machine.json")
    if not machine:
        return ""
    versions = ", ".join(
        f"{_NAMES.get(name, name)} {version}".rstrip() for name, version in machine["versions"].items()
    )
    return (
        f"\n{machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB, {machine['system']}, "
        f"Python {machine['python']}, {machine['date']}. {versions}.\n"
    )


def quality_table(name: str) -> str:
    """The table that a `quality_table` target made."""
    path = RESULTS / f"{name}.md"
    return path.read_text() if path.exists() else _not_measured("make build && python -m benchmarks.collect")


def build_file() -> str:
    """The targets of the example pipeline, as targets/BUILD.models declares them."""
    path = ROOT / "targets/BUILD.models"
    if not path.exists():
        return "```python\n```\n"
    text = path.read_text()
    calls = {}
    for node in ast.parse(text).body:  # A BUILD file of calls with literals is Python syntax, too.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name = next((k.value for k in node.value.keywords if k.arg == "name"), None)
            if isinstance(name, ast.Constant):
                calls[name.value] = ast.get_source_segment(text, node)
    shown = [calls[name] for name in _SHOWN_TARGETS if name in calls]
    return "```python\n" + "\n\n".join(str(call) for call in shown) + "\n```\n"


def session() -> str:
    """Commands and what they printed."""
    recorded: list[Mapping[str, Any]] | None = _read("session.json")
    if not recorded:
        return _not_measured("make build && python -m benchmarks.collect")
    parts = ["\n".join([f"$ {each['command']}", *each["lines"]]) for each in recorded]
    return "```console\n" + "\n\n".join(parts) + "\n```\n"


def matrix_table() -> str:
    """The release matrix: one line for each device, one column for each artifact."""
    document: Mapping[str, Any] | None = _read("matrix.json")
    if not document:
        return _not_measured("python -m benchmarks.matrix")
    cells = {(_short(cell["platform"]), _short(cell["artifact"])): cell for cell in document["cells"]}
    devices = list(dict.fromkeys(device for device, _ in cells))
    artifacts = list(dict.fromkeys(artifact for _, artifact in cells))
    lines = [
        f"| device | {' | '.join(artifacts)} |",
        f"|---{'|---' * len(artifacts)}|",
        *(
            f"| {device} | {' | '.join(_matrix_cell(cells.get((device, each))) for each in artifacts)} |"
            for device in devices
        ),
    ]
    verdicts = [cell["verdict"] for cell in document["cells"]]
    counts = ", ".join(f"{verdicts.count(each)} {each}" for each in dict.fromkeys(verdicts))
    saved = (
        f"{len(verdicts)} cells: {counts}. {document['actions']} actions make all of it; a script for each "
        f"device would run {document['separate_actions']}."
    )
    if document["cold_s"]:
        saved += (
            f" On an empty cache, {document['cold_s'] / 60:.1f} minutes on two cores: training and making the tools'"
            " environments of packages that were downloaded before."
        )
    if document["again_s"]:
        saved += f" A second time: {document['again_s']:.1f} s."
    reasons = [
        f"{_short(cell['platform'])}: {cell['reason']}" for cell in document["cells"] if cell["reason"]
    ]
    return "\n".join(
        [*lines, "", "Not run here:", "", *(f"- {each}" for each in dict.fromkeys(reasons)), "", saved, ""]
    )


def _milliseconds(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.2g} ms"


def _short(label: str) -> str:
    return label.rpartition(":")[2]


def _matrix_cell(cell: Mapping[str, Any] | None) -> str:
    """Format, bytes and, of a binary that was run, top-1 agreement, exact match and latency."""
    if cell is None:
        return ""
    report = cell["report"] or {}
    parts = [cell["format"] or "-"]
    if report:
        parts[0] += f", {report['size_bytes']:,} B"
    parity, latency = report.get("parity"), report.get("latency_ms")
    if parity and latency:
        star = "*" if report["runner"] == "qemu-user" else ""
        parts.append(
            f"**{cell['verdict']}** {parity['top1_agreement']:.0%}, {parity['exact_match']:.0%}, "
            f"{_milliseconds(latency['median'])}{star}"
        )
    else:
        parts.append(cell["verdict"])
    return "<br>".join(parts).replace("|", "/")


def formats_table() -> str:
    """Every format of the example models: bytes that were predicted and came out, and what the runtime answered."""
    cells: list[Mapping[str, Any]] | None = _read("formats.json")
    if not cells:
        return _not_measured("python -m benchmarks.formats")
    made = [cell for cell in cells if "size_bytes" in cell]
    lines = [
        "| model | format | predicted | on disk | difference | same top token as in torch | exact match |",
        "|---|---|---|---|---|---|---|",
        *(_format_line(cell) for cell in made),
    ]
    told = (
        f"{len(made)} files. {len(cells) - len(made)} other combinations are refused, each with its reason."
    )
    return "\n".join([*lines, "", told, ""])


def _format_line(cell: Mapping[str, Any]) -> str:
    predicted, found = cell["predicted"], cell["size_bytes"]
    numbers = [f"{predicted:,}", f"{found:,}", f"{(predicted - found) / found:+.2%}"]
    if cell["top1_agreement"] is None:
        numbers += ["", cell["verdict"]]
    else:
        numbers += [f"{cell['top1_agreement']:.1%}", f"{cell['exact_match']:.0%}"]
    return f"| {' | '.join([_short(cell['artifact']), cell['format'], *numbers])} |"


FILLERS: Mapping[str, Callable[[], str]] = {
    "graph-speed": speed_table,
    "quality": lambda: quality_table("quality"),
    "quality-digits": lambda: quality_table("quality-digits"),
    "build-file": build_file,
    "session": session,
    "matrix": matrix_table,
    "formats": formats_table,
}


def filled(text: str) -> str:
    """`text` with every block filled. Raises KeyError for a block that nobody fills."""
    return _BLOCK.sub(lambda match: match[1] + FILLERS[match[2]]() + match[3], text)


def main() -> int:
    """Rewrite or check the documents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stale = {path: new for path in DOCUMENTS if (new := filled(old := path.read_text())) != old}
    for path, text in stale.items():
        if arguments.check:
            sys.stderr.write(f"error: {path.relative_to(ROOT)} is not what benchmarks/results says\n")
        else:
            path.write_text(text)
    if arguments.check and stale:
        sys.stderr.write("hint: run `python -m benchmarks.readme`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One self-contained HTML page of a finished matrix: no network, no script library."""

from __future__ import annotations

from html import escape
from pathlib import Path

from modelbuild import __version__
from modelbuild.cli import units
from modelbuild.cli.matrix_plot import pareto_plot
from modelbuild.cli.matrix_table import COLUMNS, cells_of
from modelbuild.cli.pipeline_drawing import draw_pipeline, lineage
from modelbuild.driver.matrix import MatrixOutcome, MatrixRow, target_edges

_VERDICTS = {
    "pass": "made, run here, and within its bounds",
    "fail": "made and run here, and beyond a bound",
    "unverified": "made, and cannot be run here",
    "impossible": "the device cannot have it",
    "broken": "an action failed",
}
_NUMERIC = frozenset(COLUMNS) - {"device", "artifact", "format", "runner", "verdict"}


def page_of(outcome: MatrixOutcome) -> str:
    """The page: what was saved, the table, the size-quality plot, the pipeline, each artifact's lineage."""
    edges = list(target_edges(outcome.graph))
    title = f"{outcome.label.name}: {units.count(len(outcome.rows), 'artifact')}"
    artifacts = list(dict.fromkeys(str(row.cell.artifact) for row in outcome.rows))
    lineages = "".join(_lineage(lineage(edges, artifact)) for artifact in artifacts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_beside("matrix_page.css")}</style>
</head>
<body>
<header>
<h1>{escape(str(outcome.label))}</h1>
{_counts(outcome)}
</header>
<main>
<section><h2>Devices and artifacts</h2>{_table(outcome)}{_legend(outcome)}</section>
<section><h2>Size and quality</h2>
<p>Each point is an artifact that was run. The line joins those that no other beats in both.</p>
{pareto_plot(outcome.rows)}</section>
<section><h2>Pipeline</h2>
<p>Targets, and who reads what whom has made. What no device differs in is there once.</p>
<div class="wide" tabindex="0">{draw_pipeline(edges, outcome.label)}</div></section>
<section><h2>Lineage</h2><p>From the first data to each artifact.</p>
<ul class="lineage">{lineages}</ul></section>
</main>
<footer>modelbuild {escape(__version__)}</footer>
<script>{_beside("matrix_page.js")}</script>
</body>
</html>
"""


def _counts(outcome: MatrixOutcome) -> str:
    saved = outcome.separate_actions - outcome.actions
    share = f" ({100 * saved / outcome.separate_actions:.0f} % fewer)" if outcome.separate_actions else ""
    verdicts = "".join(
        f'<span class="badge {verdict}" title="{escape(text)}">{number} {verdict}</span>'
        for verdict, text in _VERDICTS.items()
        if (number := sum(row.verdict == verdict for row in outcome.rows))
    )
    return f"""<p class="badges">{verdicts}</p>
<p><strong>{outcome.actions:,} actions</strong> make everything; a script for each device would run
<strong>{outcome.separate_actions:,}</strong>{share}. In this build {outcome.executed:,} ran, in
{escape(units.duration(outcome.wall_s))}; the rest came from the cache.</p>"""


def _table(outcome: MatrixOutcome) -> str:
    head = "".join(
        f'<th scope="col"{_number_class(name)}><button type="button">{escape(name)}</button></th>'
        for name in COLUMNS
    )
    body = "".join(_row(row) for row in outcome.rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _row(row: MatrixRow) -> str:
    texts = cells_of(row)
    cells = "".join(
        f"<td{_number_class(name)}>{escape(text)}</td>"
        for name, text in zip(COLUMNS[:-1], texts[:-1], strict=True)
    )
    reason = f'<div class="reason">{escape(row.reason)}</div>' if row.reason else ""
    notes = "".join(f'<div class="reason">{escape(note)}</div>' for note in row.cell.notes[:6])
    more = f"<details><summary>what each toolchain says</summary>{notes}</details>" if notes else ""
    badge = f'<span class="badge {row.verdict}">{row.verdict}</span>'
    return f"<tr>{cells}<td>{badge}{reason}{more}</td></tr>"


def _legend(outcome: MatrixOutcome) -> str:
    lines = [
        "Memory is predicted: weights, KV cache at the device's context length, runtime.",
        "Exact match: share of probe rows whose every token (or label) is right.",
        "Top-1 and KL against the teacher tell what all compression cost.",
        "Parity compares the device's own runtime with the same model in torch.",
    ]
    if any(row.report.get("runner") == "qemu-user" for row in outcome.rows):
        lines.append("* Run under emulation: that time says nothing of the device.")
    return f'<p class="note">{escape(" ".join(lines))}</p>'


def _lineage(labels: list[str]) -> str:
    steps = " → ".join(f"<code>{escape(label)}</code>" for label in labels)
    return f"<li>{steps}</li>"


def _number_class(name: str) -> str:
    return ' class="n"' if name in _NUMERIC else ""


def _beside(name: str) -> str:
    """A file that lies beside this one."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")

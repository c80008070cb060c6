"""The plot of a matrix."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from modelbuild.cli.matrix_plot import Point, pareto_front, pareto_plot, points
from modelbuild.cli.pipeline_drawing import draw_pipeline, lineage
from modelbuild.driver.matrix import MatrixRow
from modelbuild.label import parse_label
from modelbuild.matrix import MatrixCell


def row(platform: str, size: int, quality: float, format_: str = "f") -> MatrixRow:
    labels = parse_label("//a:model"), parse_label(f"//p:{platform}")
    cell = MatrixCell(*labels, format_, artifact_name="model", platform_name=platform)
    return MatrixRow(cell, "pass", "", {"size_bytes": size, "parity": {"teacher_top1": quality}})


def test_cells_with_the_same_figures_are_one_point() -> None:
    found = points([row("one", 10, 0.9), row("two", 10, 0.9), row("three", 20, 0.9)])
    assert [(point.size, point.names) for point in found] == [(10, ("one", "two")), (20, ("three",))]


def test_the_front_has_what_no_other_beats_in_both() -> None:
    made = [Point("m", name, size, quality, ()) for name, size, quality in [
        ("small", 10, 0.8), ("worse", 20, 0.7), ("better", 30, 0.9), ("equal", 40, 0.9), ("best", 50, 1.0),
    ]]  # fmt: skip
    assert [point.format for point in pareto_front(made[::-1])] == ["small", "better", "best"]


def test_the_plot_is_xml_with_a_title_for_each_point() -> None:
    svg = ET.fromstring(pareto_plot([row("one", 10, 0.9), row("two", 10_000, 1.0, "<odd>")]))
    titles = [each.text for each in svg.iter() if each.tag.endswith("title")]
    assert titles == ["model, f: 10 B, 90.00% on one", "model, <odd>: 10.0 kB, 100.00% on two"]


def test_labels_of_points_that_lie_close_do_not_cover_each_other() -> None:
    close = [row("one", 1000 + 20 * n, 0.9 + n / 1e4, f"format:{n}") for n in range(5)]
    svg = ET.fromstring(pareto_plot([*close, row("far", 40_000, 0.99, "a-long-format:at-the-edge")]))
    labels = [each for each in svg.iter() if each.tag.endswith("text") and ":" in (each.text or "")][1:]
    assert len(labels) == 6
    heights = [float(each.attrib["y"]) for each in labels]
    assert len({round(height) for height in heights[:5]}) > 2
    assert labels[-1].attrib["text-anchor"] == "end", "it would run into the legend"


def test_nothing_that_was_run_is_told() -> None:
    assert "Nothing was run" in pareto_plot([MatrixRow(row("one", 1, 1).cell, "impossible", "no")])


EDGES = [("//:data", "//:model"), ("//:model", "//:all"), ("//:data", "//:all"), ("//:other", "//:elsewhere")]


def test_the_pipeline_shows_what_the_last_target_rests_on() -> None:
    svg = ET.fromstring(draw_pipeline(EDGES, parse_label("//:all")))
    titles = [each.text for each in svg.iter() if each.tag.endswith("title")]
    assert titles == ["//:data", "//:model", "//:all"]
    assert (
        len([each for each in svg.iter() if each.tag.endswith("path")]) == 2
    )  # What is implied is left out.


def test_targets_of_the_same_name_are_told_apart() -> None:
    svg = draw_pipeline([("//a:data", "//b:data"), ("//b:data", "//b:model")], parse_label("//b:model"))
    assert [part.partition("</text>")[0].rpartition(">")[2] for part in svg.split("<g>")[1:]] == [
        "a:data",
        "b:data",
        "model",
    ]


def test_lineage_starts_with_the_data() -> None:
    assert lineage(EDGES, "//:model") == ["//:data", "//:model"]
    assert lineage(EDGES, "//:unknown") == ["//:unknown"]

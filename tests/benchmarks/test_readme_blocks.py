"""benchmarks.readme fills README's blocks; benchmarks.picture draws what events say."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.picture import picture, read_events, telling_moment
from modelbuild.events import to_json
from tests.cli.replay_events import made_up


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    return tmp_path


def test_filling_twice_changes_nothing() -> None:
    once = "".join(readme.filled(path.read_text()) for path in readme.DOCUMENTS)
    assert readme.filled(once) == once
    assert once.count("<!-- filled: ") == once.count("<!-- end filled -->") >= len(readme.FILLERS)


def test_a_block_that_nobody_fills_is_an_error() -> None:
    with pytest.raises(KeyError):
        readme.filled("<!-- filled: nothing -->\n<!-- end filled -->")


@pytest.mark.usefixtures("results")
def test_without_results_the_block_says_how_to_get_them() -> None:
    assert "python -m benchmarks.graph_speed" in readme.speed_table()
    assert "benchmarks.collect" in readme.session()


def test_speed_table(results: Path) -> None:
    row = {"cold": 12.345, "null": 0.0281, "leaf": 0.5}
    report = {"10": {"modelbuild": row, "ninja": row}, "1000": {"modelbuild": row}}
    (results / "graph_speed.json").write_text(json.dumps(report))
    assert readme.speed_table().splitlines() == [
        "| seconds: null / one leaf changed / cold | 10 actions | 1,000 actions |",
        "|---|---|---|",
        "| modelbuild | 0.028 / 0.50 / 12 | 0.028 / 0.50 / 12 |",
        "| ninja | 0.028 / 0.50 / 12 | not run |",
    ]


def test_formats_table(results: Path) -> None:
    made = {"predicted": 1_010, "size_bytes": 1_000, "top1_agreement": 0.997, "exact_match": 0.88}
    cells = [
        {"artifact": "//targets:pilot", "format": "gguf:Q4_0", "verdict": "pass"} | made,
        {"artifact": "//targets:pilot", "format": "tvm:int8", "verdict": "impossible"},
    ]
    (results / "formats.json").write_text(json.dumps(cells))
    assert readme.formats_table().splitlines()[2:] == [
        "| pilot | gguf:Q4_0 | 1,010 | 1,000 | +1.00% | 99.7% | 88% |",
        "",
        "1 files. 1 other combinations are refused, each with its reason.",
    ]


def test_the_build_file_block_holds_the_pipeline() -> None:
    shown = readme.build_file()
    for name in ("missions", "teacher", "int4", "drone-int4"):
        assert f'name = "{name}"' in shown


def test_session(results: Path) -> None:
    (results / "session.json").write_text(json.dumps([{"command": "a", "lines": ["b", "c"]}]))
    assert readme.session() == "```console\n$ a\nb\nc\n```\n"


def test_pictures_show_the_build(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(to_json(event)) + "\n" for event in made_up()))
    recorded = read_events(file)
    running = text(picture(recorded, telling_moment(recorded), "running", tmp_path))
    finished = text(picture(recorded, recorded[-1].time_s, "finished", tmp_path))
    assert "modelbuild build //targets:drone-int4" in finished
    assert "//targets:teacher" in running
    assert "built 1 target" in finished
    assert "built 1 target" not in running
    assert "http" not in picture(recorded, 1.0, "x", tmp_path).replace(
        'xmlns="http://www.w3.org/2000/svg"', ""
    )


def text(svg: str) -> str:
    """What an SVG says."""
    return re.sub(r"<[^>]*>", "", re.sub(r"</text>\s*<text", "</text><text", svg)).replace("&#160;", " ")


def test_events_of_another_schema_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps({"schema": 2, "event": "build_started"}) + "\n")
    with pytest.raises(ValueError, match="schema 2"):
        read_events(file)

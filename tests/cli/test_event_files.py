from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from modelbuild.cli.console import tee
from modelbuild.cli.event_files import JsonlSink, ProfileSink, ResultSink, open_for_writing
from modelbuild.errors import EnvironmentFailure, UsageError


def profile_of(replay: Any, path: Path, *, fail: bool) -> dict[str, Any]:
    sink = ProfileSink(open_for_writing(str(path), "--profile"))
    for event in replay.made_up(fail=fail):
        sink(event)
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def test_jsonl_holds_every_event_and_decodes_again(replay: Any, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = tee([JsonlSink(open_for_writing(str(path), "--events")), ResultSink()])
    for event in replay.made_up():
        sink(event)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [replay.decode(row) for row in rows] == replay.made_up()
    assert {row["schema"] for row in rows} == {1}
    assert rows[-1]["event"] == "build_finished"
    assert {"label", "mnemonic", "key", "result", "duration_s", "peak_rss_bytes"} <= next(
        row for row in rows if row["event"] == "action_finished"
    ).keys()


def test_profile_lanes_do_not_overlap(replay: Any, tmp_path: Path) -> None:
    spans = [e for e in profile_of(replay, tmp_path / "p.json", fail=True)["traceEvents"] if e["ph"] == "X"]
    assert {span["tid"] for span in spans} == {1, 2}
    for lane in (1, 2):
        ends = 0.0
        for span in sorted((s for s in spans if s["tid"] == lane), key=lambda s: s["ts"]):
            assert span["ts"] >= ends
            ends = span["ts"] + span["dur"]


def test_profile_rows(replay: Any, tmp_path: Path) -> None:
    document = profile_of(replay, tmp_path / "p.json", fail=False)
    teacher = next(e for e in document["traceEvents"] if e["name"] == "Train //targets:teacher")
    assert (teacher["ts"], teacher["dur"]) == (1.4e6, pytest.approx(4.1e6))
    assert teacher["args"]["result"] == "executed"
    assert teacher["args"]["peak_rss_bytes"] == 900 << 20
    hits = [e for e in document["traceEvents"] if e["ph"] == "i"]
    assert [hit["tid"] for hit in hits] == [0, 0]
    losses = [e for e in document["traceEvents"] if e["ph"] == "C" and e["name"] == "loss //targets:teacher"]
    assert len(losses) == 40
    names = [e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"]
    assert names == ["cache hits", "slot 1", "slot 2"]


def test_result_document(replay: Any) -> None:
    sink = ResultSink()
    for event in replay.made_up(fail=True, log="/logs/x"):
        sink(event)
    document = sink.document()
    assert document["exit_code"] == 1
    assert document["counts"] == {
        "executed": 3,
        "local_hits": 2,
        "remote_hits": 0,
        "unchanged": 6,
        "failed": 1,
    }
    assert document["failures"] == [
        {
            "label": "//targets:student",
            "mnemonic": "Distill",
            "error": "the tool exited with 1",
            "log": "/logs/x",
        }
    ]
    assert document["skipped"] == ["//targets:drone-int4"]


@pytest.mark.parametrize("sink", [JsonlSink, ProfileSink])
def test_full_disk(sink: Any, replay: Any) -> None:
    stream = open_for_writing("/dev/full", "--events")
    report = sink(stream)

    def feed() -> None:
        for event in replay.made_up():
            report(event)

    with pytest.raises(EnvironmentFailure, match="`/dev/full` cannot be written"):
        feed()
    with contextlib.suppress(OSError):
        stream.close()


def test_unwritable_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`--events .*/no/x` cannot be written"):
        open_for_writing(str(tmp_path / "no" / "x"), "--events")

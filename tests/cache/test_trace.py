"""Trace: runs come back as they were recorded, also from another process, and old ones go."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from modelbuild.actions.result import ActionResult, OutputDigest
from modelbuild.cache.trace import KEPT_OF_ALL, KEPT_RUNS, Cost, Trace, TraceRow
from modelbuild.digest import digest_bytes


def _sha(text: str) -> str:
    return digest_bytes(text.encode()).sha256


ROW = TraceRow(
    output_path="targets/student/model",
    label="//targets:student",
    mnemonic="Distill",
    time_s=1_700_000_000.5,
    key=_sha("key"),
    components={name: _sha(name) for name in ("schema", "command", "tool", "inputs", "platform")},
    detail={
        "params": {"steps": 300, "architecture": {"hidden_size": 256}, "text": "gr\u00fcn"},
        "tool": {"files": {"tool.py": _sha("tool.py")}, "distributions": {"torch": "2.13.0"}},
        "inputs": {"in/teacher": ["tree", _sha("teacher")]},
        "platform": ["cpu=x86_64"],
    },
    outcome="executed",
    result=ActionResult({"out/model": OutputDigest("tree", digest_bytes(b"model"))}, None, 60.0, 1 << 30),
    duration_s=60.0,
    peak_rss_bytes=1 << 30,
    host="laptop",
    reason="never built here",
)


def test_a_run_comes_back_before_and_after_it_is_written(tmp_path: Path) -> None:
    path = str(tmp_path / "trace.sqlite")
    trace = Trace(path)
    assert trace.latest(ROW.output_path) is None
    trace.record(ROW)
    assert trace.latest(ROW.output_path) == ROW
    trace.close()
    again = Trace(path)
    assert again.latest(ROW.output_path) == ROW
    assert again.latest_executed(ROW.output_path) == ROW
    assert again.history("//targets:student") == [ROW]
    assert again.history("//targets:teacher") == []
    again.close()


def test_workspaces_that_share_a_cache_have_histories_of_their_own(tmp_path: Path) -> None:
    path = str(tmp_path / "trace.sqlite")
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    first = Trace(path, workspace=str(one))
    first.record(ROW)
    first.close()
    second = Trace(path, workspace=str(two))
    assert second.latest(ROW.output_path) is None
    assert second.latest_executed(ROW.output_path) is None
    assert second.history(ROW.label) == []
    assert second.estimates() == {ROW.output_path: Cost(60.0, 1 << 30)}
    other = replace(ROW, duration_s=2.0, reason="never built here, either")
    second.record(other)
    second.close()
    first, second = Trace(path, workspace=str(one)), Trace(path, workspace=str(two))
    assert (first.latest(ROW.output_path), first.history(ROW.label)) == (ROW, [ROW])
    assert (second.latest(ROW.output_path), second.history(ROW.label)) == (other, [other])
    assert first.estimates() == {ROW.output_path: Cost(60.0, 1 << 30)}
    assert second.estimates() == {ROW.output_path: Cost(2.0, 1 << 30)}
    first.close()
    second.close()


def test_records_without_a_workspace_and_of_one_that_is_gone_are_taken_up(tmp_path: Path) -> None:
    path = str(tmp_path / "trace.sqlite")
    for workspace in ("", str(tmp_path / "gone")):
        before = Trace(path, workspace=workspace)
        before.record(replace(ROW, host=workspace))
        before.close()
        trace = Trace(path, workspace=str(tmp_path))
        latest = trace.latest(ROW.output_path)
        assert latest == trace.latest_executed(ROW.output_path) == trace.history(ROW.label)[0]
        assert latest is not None
        assert latest.host == workspace
        trace.close()


def test_records_of_checkouts_that_come_and_go_do_not_pile_up(tmp_path: Path) -> None:
    path = str(tmp_path / "trace.sqlite")
    for number in range(KEPT_OF_ALL + 100):
        trace = Trace(path, workspace=str(tmp_path / f"checkout{number}"))
        trace.record(ROW)
        trace.close()
    trace = Trace(path, workspace=str(tmp_path))
    assert KEPT_OF_ALL // 2 < len(trace.history(ROW.label)) < KEPT_OF_ALL + 50
    trace.close()


def test_latest_is_the_last_and_hits_do_not_count_as_executed() -> None:
    trace = Trace(None)
    hit = replace(ROW, outcome="local_hit", time_s=ROW.time_s + 1, result=None)
    trace.record(ROW)
    trace.record(hit)
    for _ in range(2):
        assert trace.latest(ROW.output_path) == hit
        assert trace.latest_executed(ROW.output_path) == ROW
        trace.flush()
    assert [row.outcome for row in trace.history(ROW.label)] == ["local_hit", "executed"]


def test_estimates_are_of_the_last_execution() -> None:
    trace = Trace(None)
    trace.record(ROW)
    trace.record(replace(ROW, duration_s=50.0))
    trace.record(replace(ROW, outcome="local_hit", duration_s=0.1))
    trace.record(replace(ROW, output_path="other", outcome="failed"))
    assert trace.estimates() == {ROW.output_path: Cost(50.0, 1 << 30)}
    trace.record(replace(ROW, duration_s=40.0))
    assert trace.estimates() == {ROW.output_path: Cost(40.0, 1 << 30)}


def test_shared_parts_are_stored_once(tmp_path: Path) -> None:
    path = str(tmp_path / "trace.sqlite")
    trace = Trace(path)
    for number in range(100):
        trace.record(replace(ROW, output_path=f"out/{number}"))
    trace.close()
    again = Trace(path)
    assert again._database.read("SELECT count(*) FROM parts") == [(2,)]
    latest = again.latest("out/57")
    assert latest is not None
    assert latest.detail == ROW.detail
    again.close()


def test_old_runs_are_forgotten() -> None:
    trace = Trace(None)
    for number in range(200):
        trace.record(replace(ROW, time_s=float(number)))
        trace.flush()
    history = trace.history(ROW.label)
    assert KEPT_RUNS <= len(history) <= KEPT_RUNS + 8
    assert [row.time_s for row in history][:3] == [199.0, 198.0, 197.0]


def test_damage_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "trace.sqlite"
    trace = Trace(str(path))
    trace.record(ROW)
    trace.close()
    path.write_bytes(b"damage" * 1000)
    again = Trace(str(path))
    assert again.latest(ROW.output_path) is None
    assert again.estimates() == {}
    again.record(ROW)
    again.close()
    assert len(again._database.notes) == 1
    third = Trace(str(path))
    assert third.latest(ROW.output_path) == ROW
    third.close()


def test_a_row_that_means_nothing_is_skipped() -> None:
    trace = Trace(None)
    trace.record(ROW)
    trace.flush()
    trace._database.write_rows("UPDATE runs SET run = ?", [("[1,2]",)])
    assert trace.latest(ROW.output_path) is None
    assert trace.history(ROW.label) == []


def test_threads_may_record(tmp_path: Path) -> None:
    trace = Trace(str(tmp_path / "trace.sqlite"))

    def work(number: int) -> None:
        trace.record(replace(ROW, output_path=f"out/{number}"))
        if number % 10 == 0:
            trace.flush()
        assert trace.latest(f"out/{number}") is not None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    assert len(trace.history(ROW.label)) == 200
    trace.close()


def test_a_read_only_trace_answers(freezable: Path, freeze: Callable[[Path], None]) -> None:
    path = str(freezable / "trace.sqlite")
    trace = Trace(path)
    trace.record(ROW)
    trace.close()
    freeze(freezable)
    frozen = Trace(path)
    assert frozen.latest(ROW.output_path) == ROW
    frozen.record(ROW)
    frozen.close()

"""What a tool writes to its progress pipe, right or wrong."""

from __future__ import annotations

import pytest

from modelbuild.execution.executor import Progress
from modelbuild.execution.worker_pool import deliver


def delivered(data: bytes) -> list[Progress]:
    found: list[Progress] = []
    assert deliver(data, found.append) == b""
    return found


def test_a_report_and_the_start_of_the_next() -> None:
    found: list[Progress] = []
    rest = deliver(
        b'{"step":1,"total":2,"unit":"steps","metrics":{"loss":0.5,"phase":"warm"}}\n{"st', found.append
    )
    assert rest == b'{"st'
    assert found == [Progress(1, 2, "steps", {"loss": 0.5, "phase": "warm"})]


def test_a_loss_that_is_no_number_is_text() -> None:
    (report,) = delivered(
        b'{"step":1,"total":2,"unit":"s","metrics":{"a":NaN,"b":-Infinity,"c":null,"d":[1]}}\n'
    )
    assert report.metrics == {"a": "nan", "b": "-inf", "c": "None", "d": "[1]"}


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"{}",
        b"null",
        b"[1, 2]",
        b"\xff\xfe",
        b'{"step":"x","total":1,"unit":"s","metrics":{}}',
        b'{"step":1e400,"total":1,"unit":"s","metrics":{}}',
        b'{"step":NaN,"total":1,"unit":"s","metrics":{}}',
        b'{"step":1,"total":1,"unit":"s","metrics":3}',
        b"[" * 60_000,
    ],
)
def test_what_is_no_report_is_dropped(line: bytes) -> None:
    assert delivered(line + b"\n") == []

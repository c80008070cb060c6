"""The evaluator survives what BUILD files do to it, and tells a bug of ours from a mistake of theirs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelbuild.errors import LoadError
from modelbuild.loading.evaluator import Evaluator, Limits


def test_packages_come_in_the_order_they_are_asked_for(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "BUILD.models").write_text(f"genrule(name = '{name}')\n")
    with Evaluator(("genrule",), lambda _: str(tmp_path)) as evaluator:
        found = list(evaluator.evaluate([("", "b"), ("", "a")]))
        assert [package.calls[0].attributes["name"] for package in found] == ["b", "a"]
        again = next(evaluator.evaluate([("", "a")]))
        assert again.calls == found[1].calls


def test_an_error_in_one_package_leaves_the_others(tmp_path: Path) -> None:
    for name, text in (("a", "nope()"), ("b", "genrule(name = 'x')")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "BUILD.models").write_text(text)
    with Evaluator(("genrule",), lambda _: str(tmp_path)) as evaluator:
        broken, fine = evaluator.evaluate([("", "a"), ("", "b")])
    assert broken.error is not None
    assert fine.error is None
    assert len(fine.calls) == 1


def test_no_process_is_left(tmp_path: Path) -> None:
    (tmp_path / "BUILD.models").write_text("x = [0] * 2000000000\n")
    with Evaluator((), lambda _: str(tmp_path), limits=Limits(memory_bytes=64 << 20)) as evaluator:
        child = evaluator._child
        with pytest.raises(LoadError, match="memory"):
            list(evaluator.evaluate([("", "")]))
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize(
    ("call", "limits"),
    [
        ("filegroup(name = 'x', tags = ['a'] * 3001)", Limits(values=3000)),
        (
            "filegroup(name = 'x', tags = select({'a': [{}] * 2000, 'b': [[1, 2]] * 500}))",
            Limits(values=3000),
        ),
        ("filegroup(name = 'x', tags = ['a' * 3000])", Limits(answer_bytes=2000)),
    ],
)
def test_a_file_that_declares_too_much_is_refused_where_it_does(
    call: str, limits: Limits, tmp_path: Path
) -> None:
    (tmp_path / "BUILD.models").write_text(f"filegroup(name = 'a')\n{call}\nfilegroup(name = 'b')\n")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "BUILD.models").write_text("filegroup(name = 'c', tags = ['a'] * 100)\n")
    with Evaluator(("filegroup",), lambda _: str(tmp_path), limits=limits) as evaluator:
        refused, fine = evaluator.evaluate([("", ""), ("", "p")])
    assert refused.error is not None
    assert refused.error.message.endswith("this one declares more")
    assert str(refused.error.location) == "BUILD.models:2"
    assert refused.error.notes == ("this call of `filegroup` has the most of them",)
    assert fine.error is None
    with Evaluator(("filegroup",), lambda _: str(tmp_path)) as evaluator:
        assert [each.error for each in evaluator.evaluate([("", ""), ("", "p")])] == [None, None]


def test_a_bug_of_ours_is_not_called_a_mistake() -> None:
    def root_of(_: str) -> str:
        raise ZeroDivisionError

    with (
        Evaluator((), root_of) as evaluator,
        pytest.raises(RuntimeError, match="ZeroDivisionError"),
    ):
        list(evaluator.evaluate([("", "")]))


def test_a_fifo_is_no_build_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "BUILD.models")
    with Evaluator((), lambda _: str(tmp_path)) as evaluator:
        (package,) = evaluator.evaluate([("", "")])
    assert package.error is not None
    assert package.error.message == "`BUILD.models` is not a regular file"

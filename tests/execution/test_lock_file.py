"""Locks: what matters in them and what does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.errors import AnalysisError
from modelbuild.execution.lock_file import LockFile, read_lock
from modelbuild.tool import Lock

HASHES = "--hash=sha256:{0} \\\n    --hash=sha256:{1}"
ONE, TWO = "1" * 64, "2" * 64


Write = Callable[..., LockFile]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str, platform: str = "", python_version: str = "") -> LockFile:
        path = tmp_path / "requirements.lock"
        path.write_text(text)
        return read_lock(Lock(path, platform, python_version), "linux-x86_64")

    return write


@pytest.mark.parametrize(
    "text",
    [
        "b==2\na==1\n",
        "# made by uv\na==1  # via b\n\nB==2\n",
        "a == 1\nb==2",
        "a==1\r\nb==2\r\n",
        "\ufeffa==1\nb==2\n",
        "a[extra]==1\nb==2\n",
        "a==\\\n1\nb==2\n",
    ],
)
def test_spelling_does_not_matter(write: Write, text: str) -> None:
    assert write(text).digest == write("a==1\nb==2\n").digest
    assert write(text).detail == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    "text",
    ["a==1\n", "a==1\nb==3\n", "a==1\nb==2 ; sys_platform == 'linux'\n", f"a==1\nb==2 --hash=sha256:{ONE}\n"],
)
def test_what_is_installed_does(write: Write, text: str) -> None:
    assert write(text).digest != write("a==1\nb==2\n").digest
    assert write(text).detail != {"a": "1", "b": "2"}


def test_platform_and_python_matter(write: Write) -> None:
    locks = [
        write("a==1"),
        write("a==1", "aarch64-manylinux_2_28"),
        write("a==1", "aarch64-manylinux_2_28", "3.12"),
    ]
    assert len({lock.digest for lock in locks}) == 3


def test_hashes_in_any_order(write: Write) -> None:
    first = write(f"a==1 \\\n    {HASHES.format(ONE, TWO)}\n    # via b\nb==2\n")
    second = write(f"b==2\na==1 {HASHES.format(TWO, ONE)}\n")
    assert first.digest == second.digest
    assert first.text == f"a==1 --hash=sha256:{ONE} --hash=sha256:{TWO}\nb==2\n"


def test_a_universal_lock_pins_one_name_twice(write: Write) -> None:
    lock = write("a==1 ; python_version < '3.12'\na==2 ; python_version >= '3.12'\n")
    assert lock.detail == {"a": "1 ; python_version < '3.12' or 2 ; python_version >= '3.12'"}


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("there is no version of zope-interface==9", 2),
        ("Failed to fetch https://host/zope_interface-9-py3-none-any.whl", 2),
        ("Failed to build `Zope.Interface==9`", 2),
        ("zope is not it, nor zope-interface-extra", 0),
        ("interface", 0),
        ("a==1 and zope-interface", 1),
    ],
)
def test_the_line_that_an_installer_speaks_of(write: Write, output: str, line: int) -> None:
    assert write("a==1\nzope.interface==9\n").location(output).line == line


def test_a_lock_has_an_absolute_path() -> None:
    with pytest.raises(AnalysisError, match="relative path"):
        Lock(Path("requirements.lock"))


def test_another_python_only_for_another_machine(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="asks for Python"):
        Lock(tmp_path / "x.lock", python_version="3.12")


def test_an_empty_lock(write: Write) -> None:
    with pytest.raises(AnalysisError, match="pins nothing"):
        write("# nothing\n")

"""Installed packages against the lists of their wheels."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest

from modelbuild.errors import Interrupted
from modelbuild.execution.installed_packages import changed_packages
from tests.wheels import make_wheel


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A directory with two packages, unpacked."""
    folder = tmp_path / "packages"
    for name in ("one", "two_parts"):
        files = {f"{name}/__init__.py": "", f"{name}/a.so": "x" * 3_000_000, f"{name}/b.txt": "b"}
        zipfile.ZipFile(make_wheel(tmp_path / "wheels", name, "1.0", files=files)).extractall(folder)
    return folder


def changed(packages: Path) -> dict[str, str]:
    return changed_packages(str(packages), threading.Event())


def test_what_the_wheels_list_is_there(packages: Path) -> None:
    assert changed(packages) == {}


def test_one_byte_is_enough(packages: Path) -> None:
    with open(packages / "two_parts/a.so", "r+b") as stream:
        stream.seek(2_500_000)
        stream.write(b"y")
    assert changed(packages) == {"two-parts": "two_parts/a.so"}


def test_a_missing_file_and_a_second_package(packages: Path) -> None:
    (packages / "one/b.txt").unlink()
    (packages / "two_parts/__init__.py").write_text("1")
    assert changed(packages) == {"one": "one/b.txt", "two-parts": "two_parts/__init__.py"}


def test_what_has_no_hash_or_an_unknown_one_or_was_compiled_is_not_compared(packages: Path) -> None:
    with open(packages / "one-1.0.dist-info/RECORD", "a") as stream:
        stream.write("one/nowhere.py,,\none/other.py,quick7=abc,3\none/__pycache__/a.pyc,sha256=abc,3\n")
    assert changed(packages) == {}


def test_it_can_be_interrupted(packages: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Interrupted):
        changed_packages(str(packages), cancel)

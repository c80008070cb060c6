"""glob() finds what Bazel's glob finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelbuild.loading.globs import PackageFiles

FILES = (
    "BUILD.models",
    "a.txt",
    "b.py",
    ".hidden",
    ".hidden.txt",
    "d/c.txt",
    "d/e/f.txt",
    "d/e/g.py",
    "sub/BUILD.models",
    "sub/x.txt",
    "out/y.txt",
)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("include", "exclude", "directories", "expected"),
    [
        ("*.txt", "", False, "a.txt"),
        (".*", "", False, ".hidden .hidden.txt"),
        ("*", "", False, ".hidden .hidden.txt BUILD.models a.txt b.py"),
        ("a.txt", "", False, "a.txt"),
        ("nope", "", False, ""),
        ("d", "", False, ""),
        ("d", "", True, "d"),
        ("d/c.txt", "", False, "d/c.txt"),
        ("d/*", "", False, "d/c.txt"),
        ("d/*", "", True, "d/c.txt d/e"),
        ("*/*.txt", "", False, "d/c.txt out/y.txt"),
        ("**/*.txt", "", False, "a.txt d/c.txt d/e/f.txt out/y.txt"),
        ("d/**", "", False, "d/c.txt d/e/f.txt d/e/g.py"),
        ("d/**/*.py", "", False, "d/e/g.py"),
        ("**/e/*", "", False, "d/e/f.txt d/e/g.py"),
        ("**", "**/*.txt .*", False, "BUILD.models b.py d/e/g.py"),
        ("**/*.txt", "d/**", False, "a.txt out/y.txt"),
        ("**/*.txt", "d/*", False, "a.txt d/e/f.txt out/y.txt"),
        ("*.txt a.*", "", False, "a.txt"),
        ("sub/*", "", False, ""),
        ("sub/x.txt", "", False, ""),
        ("a*.t*t", "", False, "a.txt"),
    ],
)
def test_glob(package: Path, include: str, exclude: str, directories: bool, expected: str) -> None:
    files = PackageFiles(str(package))
    assert files.glob(include.split(), exclude.split(), directories=directories) == expected.split()


def test_skipped_directories_are_not_entered(package: Path) -> None:
    files = PackageFiles(str(package), frozenset({str(package / "out")}))
    assert files.glob(["**/*.txt"]) == ["a.txt", "d/c.txt", "d/e/f.txt"]


def test_symlinks_are_followed_and_loops_end(package: Path) -> None:
    os.symlink(package / "d", package / "link")
    os.symlink(package, package / "d" / "loop")
    os.symlink("nowhere", package / "broken.txt")
    found = PackageFiles(str(package)).glob(["link/**", "d/**"])
    assert found == ["d/c.txt", "d/e/f.txt", "d/e/g.py", "link/c.txt", "link/e/f.txt", "link/e/g.py"]


def test_only_directories_that_matter_are_listed(package: Path) -> None:
    files = PackageFiles(str(package))
    files.glob(["d/*.txt"])
    assert {os.path.relpath(path, package) for path in files.listed} == {".", "d"}


def test_a_name_that_is_not_utf8_is_left_out(package: Path) -> None:
    with open(os.fsencode(package) + b"/\xff.txt", "wb"):
        pass
    assert PackageFiles(str(package)).glob(["*.txt"]) == ["a.txt"]


def test_a_link_that_leads_nowhere_is_no_file_and_what_it_leads_to_is_a_fact(package: Path) -> None:
    os.symlink("nowhere", package / "broken.txt")
    os.symlink("a.txt", package / "good.txt")
    os.symlink("self.txt", package / "self.txt")
    files = PackageFiles(str(package))
    assert files.glob(["*.txt"]) == ["a.txt", "good.txt"]
    assert {os.path.relpath(path, package) for path in files.links} == {"broken.txt", "good.txt", "self.txt"}

"""The root, its settings, and where packages are found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelbuild.errors import LoadError, UsageError
from modelbuild.loading.workspace import Settings, find_workspace, open_workspace


def test_the_root_is_found_from_below(tmp_path: Path) -> None:
    (tmp_path / "modelbuild.toml").touch()
    (tmp_path / "a" / "b").mkdir(parents=True)
    workspace = find_workspace(str(tmp_path / "a" / "b"))
    assert workspace.root == str(tmp_path.resolve())
    assert workspace.working_package(str(tmp_path / "a" / "b")) == "a/b"
    assert workspace.working_package(str(tmp_path)) == ""
    assert workspace.settings == Settings()
    assert workspace.cache_dir == str(tmp_path.resolve() / "cache")


def test_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is in no workspace"):
        find_workspace(str(tmp_path))


def test_settings_and_profiles(tmp_path: Path) -> None:
    (tmp_path / "modelbuild.toml").write_text(
        '[build]\njobs = 3\ncache_dir = "/c"\nignore = ["old/"]\n[profile.ci]\njobs = 8\nkeep_going = true\n'
    )
    workspace = open_workspace(str(tmp_path))
    assert workspace.settings == Settings(jobs=3, cache_dir="/c", ignore=("old",))
    assert workspace.with_profile("ci").settings == Settings(
        jobs=8, cache_dir="/c", ignore=("old",), keep_going=True
    )
    assert workspace.cache_dir == "/c"
    with pytest.raises(UsageError) as caught:
        workspace.with_profile("cii")
    assert caught.value.hint == "did you mean `ci`?"


@pytest.mark.parametrize(
    ("text", "message", "line", "hint"),
    [
        ("[build]\n\njob = 3\n", "unknown setting `job` in `[build]`", 3, "did you mean `jobs`?"),
        ("[biuld]\n", "unknown table `biuld`", 1, "did you mean `build`?"),
        ("[build]\njobs = 'x'\n", "`jobs` must be a whole number", 2, None),
        ("[build]\njobs = true\n", "`jobs` must be a whole number", 2, None),
        ("[build]\njobs = -1\n", "`jobs` must not be negative", 2, None),
        ("[build]\nignore = 'x'\n", "`ignore` must be a list of strings", 2, None),
        ("[build]\ncache_dir = ''\n", "`cache_dir` is empty", 2, None),
        ("[profile.ci]\njobz = 1\n", "unknown setting `jobz` in `[profile.ci]`", 2, "did you mean `jobs`?"),
        ("build = 3\n", "`build` must be a table: `[build]`", 1, None),
        ("x = = 3\n", "not TOML: invalid value", 1, None),
    ],
)
def test_mistakes_in_settings(tmp_path: Path, text: str, message: str, line: int, hint: str | None) -> None:
    (tmp_path / "modelbuild.toml").write_text(text)
    with pytest.raises(LoadError) as caught:
        open_workspace(str(tmp_path))
    error = caught.value
    assert error.message == message
    assert error.hint == hint
    assert error.location is not None
    assert (error.location.path, error.location.line) == ("modelbuild.toml", line)
    assert error.source_line == text.splitlines()[line - 1]


def test_packages_are_found_where_a_person_expects_them(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    (root / "modelbuild.toml").write_text('[build]\nignore = ["old", "a/skip"]\n')
    wanted = ("a", "a/b", "a/c/d", "link/b", "link/c/d", "link", "link/skip")
    unwanted = ("old/x", "a/skip", "cache/p", "modelbuild-out/p", ".git/p", "nested/p", "nested")
    for package in (*wanted[:3], *unwanted):
        (root / package).mkdir(parents=True, exist_ok=True)
        (root / package / "BUILD.models").touch()
    (root / "nested" / "modelbuild.toml").touch()
    (root / "other_cache").mkdir()
    for name in ("BUILD.models", "CACHEDIR.TAG"):
        (root / "other_cache" / name).touch()
    (root / "dir" / "BUILD.models").mkdir(parents=True)
    os.symlink(root / "a", root / "link")
    os.symlink(root, root / "a" / "loop")
    os.symlink("b", root / "a" / "b" / "b")
    os.symlink("nowhere", root / "a" / "broken")
    os.mkdir(os.fsencode(root) + b"/\xff")  # no label can name it
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff")) / "BUILD.models").touch()
    workspace = open_workspace(str(root))
    assert workspace.find_packages().packages == tuple(sorted(wanted))
    assert workspace.find_packages("a/c").packages == ("a/c/d",)
    assert workspace.find_packages("old").packages == ()
    assert workspace.find_packages("nowhere").packages == ()
    assert not any(workspace.is_package(package) for package in (*unwanted, "dir", "") if package != ".git/p")
    assert all(workspace.is_package(package) for package in wanted)

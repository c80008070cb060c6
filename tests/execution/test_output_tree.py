"""The symlink tree a person looks into."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelbuild.actions.result import OutputDigest
from modelbuild.artifact import Artifact
from modelbuild.cache.blob_store import BlobMissing
from modelbuild.cache.disk import DiskBlobStore
from modelbuild.errors import EnvironmentFailure
from modelbuild.execution.output_tree import OutputTree
from modelbuild.tree import Tree, TreeFile

FILE = Artifact("pkg/it/out.txt", "file")
DIRECTORY = Artifact("pkg/it/model", "tree")


@pytest.fixture
def blobs(tmp_path: Path) -> Any:
    return DiskBlobStore(str(tmp_path / "cache"))


@pytest.fixture
def outputs(tmp_path: Path, blobs: DiskBlobStore) -> Any:
    outputs = OutputTree(str(tmp_path), blobs)
    outputs.prepare()
    return outputs


def file(blobs: DiskBlobStore, text: str) -> OutputDigest:
    return OutputDigest("file", blobs.put_bytes(text.encode()))


def directory(blobs: DiskBlobStore, **contents: str) -> tuple[OutputDigest, Tree]:
    tree = Tree(
        tuple(TreeFile(f"{name}/f", blobs.put_bytes(text.encode())) for name, text in contents.items())
    )
    return OutputDigest("tree", blobs.put_bytes(tree.encode())), tree


def test_git_ignores_it(tmp_path: Path, outputs: Any) -> None:
    assert (tmp_path / "modelbuild-out" / ".gitignore").read_text() == "*\n"
    (tmp_path / "modelbuild-out" / ".gitignore").write_text("mine\n")
    outputs.prepare()
    assert (tmp_path / "modelbuild-out" / ".gitignore").read_text() == "mine\n"


def test_a_foreign_file_in_its_place_is_refused(tmp_path: Path, blobs: DiskBlobStore) -> None:
    (tmp_path / "modelbuild-out").write_text("mine")
    with pytest.raises(EnvironmentFailure, match="in the way"):
        OutputTree(str(tmp_path), blobs).prepare()
    assert (tmp_path / "modelbuild-out").read_text() == "mine"


def test_a_file_is_a_symlink_to_its_blob(tmp_path: Path, outputs: Any, blobs: DiskBlobStore) -> None:
    output = file(blobs, "x")
    assert not outputs.current(FILE, output)
    outputs.put(FILE, output)
    assert outputs.current(FILE, output)
    place = tmp_path / "modelbuild-out" / FILE.path
    assert os.readlink(place) == blobs.path(output.digest)
    assert not outputs.current(FILE, file(blobs, "y"))
    outputs.put(FILE, file(blobs, "y"))
    assert place.read_text() == "y"


def test_a_tree_is_a_directory_of_symlinks(tmp_path: Path, outputs: Any, blobs: DiskBlobStore) -> None:
    output, tree = directory(blobs, a="1", b="2")
    outputs.put(DIRECTORY, output, tree)
    assert outputs.current(DIRECTORY, output, tree)
    place = tmp_path / "modelbuild-out" / DIRECTORY.path
    assert (place / "a" / "f").read_text() == "1"
    assert not place.is_symlink()
    less, less_tree = directory(blobs, b="2")
    assert not outputs.current(DIRECTORY, less, less_tree)
    outputs.put(DIRECTORY, less, less_tree)
    assert sorted(path.name for path in place.iterdir()) == ["b"]


@pytest.mark.parametrize("damage", ["file deleted", "extra file", "replaced by a file", "link elsewhere"])
def test_damage_is_noticed_and_mended(
    tmp_path: Path, outputs: Any, blobs: DiskBlobStore, damage: str
) -> None:
    output, tree = directory(blobs, a="1", b="2")
    outputs.put(DIRECTORY, output, tree)
    place = tmp_path / "modelbuild-out" / DIRECTORY.path
    if damage == "file deleted":
        (place / "a" / "f").unlink()
    elif damage == "extra file":
        (place / "extra").touch()
    elif damage == "replaced by a file":
        shutil.rmtree(place)
        place.write_text("mine")
    else:
        (place / "a" / "f").unlink()
        (place / "a" / "f").symlink_to("/etc/passwd")
    assert not outputs.current(DIRECTORY, output, tree)
    outputs.put(DIRECTORY, output, tree)
    assert outputs.current(DIRECTORY, output, tree)


def test_file_and_directory_replace_each_other(tmp_path: Path, outputs: Any, blobs: DiskBlobStore) -> None:
    place = tmp_path / "modelbuild-out" / "pkg" / "x"
    output, tree = directory(blobs, a="1")
    outputs.put(Artifact("pkg/x", "tree"), output, tree)
    outputs.put(Artifact("pkg/x", "file"), file(blobs, "file"))
    assert place.read_text() == "file"
    outputs.put(Artifact("pkg/x", "tree"), output, tree)
    assert (place / "a" / "f").read_text() == "1"
    assert sorted(path.name for path in (tmp_path / "modelbuild-out").iterdir()) == [".gitignore", "pkg"]


def test_a_file_where_a_folder_belongs_gives_way(tmp_path: Path, outputs: Any, blobs: DiskBlobStore) -> None:
    outputs.put(Artifact("pkg/x", "file"), file(blobs, "1"))
    outputs.put(Artifact("pkg/x/y", "file"), file(blobs, "2"))
    assert (tmp_path / "modelbuild-out" / "pkg" / "x" / "y").read_text() == "2"


def test_a_symlinked_folder_is_not_written_through(
    tmp_path: Path, outputs: Any, blobs: DiskBlobStore
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "modelbuild-out" / "pkg").symlink_to(elsewhere)
    outputs.put(FILE, file(blobs, "1"))
    assert list(elsewhere.iterdir()) == []


def test_deleting_everything_meanwhile_is_fine(tmp_path: Path, outputs: Any, blobs: DiskBlobStore) -> None:
    output = file(blobs, "1")
    outputs.put(FILE, output)
    shutil.rmtree(tmp_path / "modelbuild-out")
    outputs.put(Artifact("pkg/it/other.txt", "file"), output)
    outputs.put(FILE, output)
    assert outputs.current(FILE, output)


def test_a_lost_blob_is_said(outputs: Any, blobs: DiskBlobStore) -> None:
    output = file(blobs, "1")
    os.unlink(blobs.path(output.digest) or "")
    with pytest.raises(BlobMissing):
        outputs.put(FILE, output)
    assert not outputs.current(FILE, output)

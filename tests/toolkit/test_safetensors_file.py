import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from modelbuild.toolkit.request import ToolError
from modelbuild.toolkit.safetensors_file import read_entries, write_file

TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a.x": torch.ones(5),
    "a": torch.zeros(()),
    "c": torch.ones(0, 4),
}


def test_what_is_written_is_what_the_library_writes(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "theirs", metadata={"format": "pt"})
    tensors = [(name, tuple(each.shape), [each.numpy().tobytes()]) for name, each in TENSORS.items()]
    write_file(tmp_path / "ours", tensors, "F32")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_what_the_library_wrote_is_read_in_pieces(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "theirs")
    entries = read_entries(tmp_path / "theirs")
    assert {name: (each.dtype, each.shape) for name, each in entries.items()} == {
        name: ("F32", tuple(each.shape)) for name, each in TENSORS.items()
    }
    for name, each in TENSORS.items():
        assert b"".join(entries[name].pieces(4)) == each.numpy().tobytes()


def test_a_tensor_with_too_few_bytes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="`a` has 3 bytes"):
        write_file(tmp_path / "f", [("a", (2,), [b"abc"])], "F32")


@given(cut=st.integers(min_value=0, max_value=300))
def test_no_file_that_is_cut_short_is_taken(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    file = tmp_path_factory.mktemp("cut") / "f"
    save_file(TENSORS, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: min(cut, len(whole) - 1)])
    with pytest.raises(ToolError):
        read_entries(file)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "wrong about the bytes of `a`"),
        (
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
            },
            "overlap, or have gaps, at `b`",
        ),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "overlap, or have gaps, at `a`"),
        ({"a": {"dtype": "F32"}}, "its header is 'shape'"),
        ([], "not a safetensors file"),
    ],
)
def test_a_header_that_is_wrong(tmp_path: Path, header: object, message: str) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "f").write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(ToolError, match=message):
        read_entries(tmp_path / "f")


def test_a_pointer_of_git_lfs_says_so(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(ToolError) as caught:
        read_entries(tmp_path / "f")
    assert caught.value.hint == "it is a pointer of Git LFS: run `git lfs pull`"

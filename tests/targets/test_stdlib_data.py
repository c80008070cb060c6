"""The standard library as text: files, not pieces of files, are held out."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

GENERATOR = Path(__file__).parents[2] / "targets/stdlib/stdlib.py"
ARGS = {"train_bytes": 10**9, "calibration_bytes": 10**9, "eval_bytes": 10**9, "row_bytes": 200}


@pytest.fixture(scope="module")
def stdlib() -> Any:
    spec = importlib.util.spec_from_file_location("stdlib_generator", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def corpus(tmp_path: Path) -> Any:
    for number in range(300):
        folder = tmp_path / f"package{number % 7}"
        folder.mkdir(exist_ok=True)
        lines = [f"value_{number}_{line} = {line}\n" for line in range(40)]
        (folder / f"module{number}.py").write_text(
            "# All rights reserved, by the same owner.\n" * 9 + "".join(lines)
        )
    return tmp_path


def split_of(rows: Any) -> Any:
    return {row["file"]: split for split, row in rows}


def test_a_file_is_in_one_split_and_a_tenth_is_held_out(stdlib: Any, corpus: Path) -> None:
    rows = list(stdlib.generate(ARGS, 7, [corpus]))
    splits = {(row["file"], split) for split, row in rows}
    assert len(splits) == 300
    held_out = sum(split == "eval" for _, split in splits)
    assert 15 <= held_out <= 45


def test_no_text_is_twice(stdlib: Any, corpus: Path) -> None:
    texts = [row["text"] for _, row in stdlib.generate(ARGS, 7, [corpus])]
    assert len(set(texts)) == len(texts)
    assert sum("All rights reserved" in text and "value" not in text for text in texts) == 1


def test_an_added_file_moves_no_other(stdlib: Any, corpus: Path) -> None:
    before = split_of(stdlib.generate(ARGS, 7, [corpus]))
    (corpus / "added.py").write_text("something_new = 1\n")
    after = split_of(stdlib.generate(ARGS, 7, [corpus]))
    assert after == before | {"added.py": after["added.py"]}


def test_pieces_are_whole_lines_and_put_together_are_the_file(stdlib: Any, corpus: Path) -> None:
    (corpus / "one.py").write_text("".join(f"unique_{n} = {n}\n" for n in range(100)))
    rows = [row for _, row in stdlib.generate(ARGS, 7, [corpus]) if row["file"] == "one.py"]
    assert len(rows) > 1
    assert "".join(row["text"] for row in rows) == (corpus / "one.py").read_text()
    assert all(row["text"].endswith("\n") for row in rows)


def test_caps_hold_and_take_whole_rows(stdlib: Any, corpus: Path) -> None:
    capped = ARGS | {"train_bytes": 5000, "eval_bytes": 1000}
    sizes = {"train": 0, "eval": 0, "calibration": 0}
    for split, row in stdlib.generate(capped, 7, [corpus]):
        sizes[split] += len(row["text"].encode())
    assert 4000 < sizes["train"] <= 5000
    assert 500 < sizes["eval"] <= 1000


def test_reads_other_encodings_as_python_does(stdlib: Any, tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes("# coding: latin-1\nname = 'Müller'\n".encode("latin-1"))
    (row,) = [row for _, row in stdlib.generate(ARGS, 7, [tmp_path])]
    assert "Müller" in row["text"]

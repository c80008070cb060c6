from pathlib import Path

import pytest

from tests.tiny_text import train, write_dataset, write_tokenizer


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `dataset`, `tokenizer` and `teacher`."""
    directory = tmp_path_factory.mktemp("text")
    write_dataset(directory / "dataset")
    write_tokenizer(directory / "dataset", directory / "tokenizer")
    train(directory, directory / "teacher")
    return directory

from pathlib import Path

import pytest

from tests.tiny_text import write_dataset, write_tokenizer


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `dataset` and `tokenizer`."""
    directory = tmp_path_factory.mktemp("text")
    write_dataset(directory / "dataset")
    write_tokenizer(directory / "dataset", directory / "tokenizer")
    return directory

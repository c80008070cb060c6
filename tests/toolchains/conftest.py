from pathlib import Path

import pytest

from tests.tiny_text import write_dataset, write_tokenizer
from tests.toolchains.workshop import DATA, Workshop


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `dataset` and `tokenizer`."""
    directory = tmp_path_factory.mktemp("text")
    write_dataset(directory / "dataset")
    write_tokenizer(directory / "dataset", directory / "tokenizer")
    return directory


@pytest.fixture(scope="module")
def shop(environments: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Makes binaries; knows the dataset of `text`."""
    return Workshop(environments, tmp_path_factory.mktemp("shop"), {DATA.directory: text / "dataset"})

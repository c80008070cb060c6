from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the environments of locks are made, once for all tests."""
    return tmp_path_factory.mktemp("environments")

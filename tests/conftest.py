from collections.abc import Iterator

import pytest

from tests.locked_tools import LockedTools


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedTools]:
    """Runs tools that have a lock."""
    tools = LockedTools(tmp_path_factory.mktemp("locked"))
    yield tools
    tools.close()

from tests.rules.conftest import text

__all__ = ["text"]

from tests.toolchains.ncnn.conftest import text

__all__ = ["text"]

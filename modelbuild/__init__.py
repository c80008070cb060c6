"""modelbuild: builds models for devices the way Bazel builds software."""

__version__ = "0.1.0"

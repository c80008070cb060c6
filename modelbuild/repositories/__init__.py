"""Repositories that every workspace has: `@platforms`, with Bazel's names for CPUs and operating systems."""

BUILTIN_REPOSITORIES = {"platforms": "modelbuild.repositories.platforms"}
"""Repository name -> the Python package that holds its BUILD files."""

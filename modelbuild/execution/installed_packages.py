"""Whether installed packages are what their wheels list: an installer's cache may hold changed files.

uv makes hard links to its cache and never looks at their content again. Who edits a file of any environment
edits the cache with it, and every environment that is made later.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelbuild.errors import Interrupted
from modelbuild.execution.distributions import normalise

_CHUNK = 1 << 20


def changed_packages(directory: str, cancel: threading.Event) -> dict[str, str]:
    """Name of each distribution in `directory` that is not as its RECORD says -> the first file that differs.

    Compiled Python is not compared: installers write it. Raises Interrupted when `cancel` is set.
    https://packaging.python.org/en/latest/specifications/recording-installed-packages/
    """
    records = sorted(Path(directory).glob("*.dist-info/RECORD"))
    with ThreadPoolExecutor(thread_name_prefix="verify") as threads:
        found = threads.map(lambda record: _first_changed(record, cancel), records)
        changed = {
            normalise(record.parent.name.partition("-")[0]): file
            for record, file in zip(records, found, strict=True)
            if file
        }
    if cancel.is_set():
        raise Interrupted("making a tool's environment was interrupted")
    return changed


def _first_changed(record: Path, cancel: threading.Event) -> str:
    """The first file of a distribution that is missing or differs; empty when there is none."""
    base = str(record.parent.parent)
    for name, algorithm, expected in _listed(record):
        if cancel.is_set():
            break
        if _digest(f"{base}/{name}", algorithm) != expected:
            return name
    return ""


def _listed(record: Path) -> Iterator[tuple[str, str, str]]:
    """Path, name of the hash and its value, for each file of which a hash is known."""
    with open(record, newline="", encoding="utf-8") as stream:
        for row in csv.reader(stream):
            name, stated = (*row, "", "")[:2]
            algorithm, _, value = stated.partition("=")
            if value and algorithm in hashlib.algorithms_guaranteed and "__pycache__" not in name:
                yield name, algorithm, value.rstrip("=")


def _digest(path: str, algorithm: str) -> str:
    digest = hashlib.new(algorithm)
    try:
        with open(path, "rb", buffering=0) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")

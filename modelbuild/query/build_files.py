"""Which files a package's declarations come from: its BUILD file and what that loads, found by reading."""

from __future__ import annotations

import os
import re

from modelbuild.errors import LoadError
from modelbuild.label import Label, parse_label
from modelbuild.loading.source_file import BUILD_FILE
from modelbuild.loading.workspace import Workspace

_LOAD = re.compile(r"""^\s*load\(\s*["']([^"']+)["']""", re.MULTILINE)


def build_files(workspace: Workspace, package: str, repository: str = "") -> tuple[Label, ...]:
    """The BUILD file of a package, then every .bzl and rule file that it loads, directly or not."""
    first = Label(repository, package, BUILD_FILE)
    found: dict[Label, None] = {}
    pending = [first]
    while pending:
        label = pending.pop()
        if label in found:
            continue
        found[label] = None
        if not label.name.endswith(".py"):
            pending += _loads(workspace, label)
    return tuple(found)


def _loads(workspace: Workspace, label: Label) -> list[Label]:
    path = os.path.join(workspace.root_of(label.repository), label.path)
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            texts = _LOAD.findall(stream.read())
    except OSError:
        return []  # Loading the package says what is wrong with it.
    labels = []
    for text in texts:
        try:
            labels.append(parse_label(text, label.package, label.repository))
        except LoadError:
            continue  # Likewise.
    return labels

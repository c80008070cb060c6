"""Actions that need no process: files that are written down, trees that are put together of blobs."""

from __future__ import annotations

import os

from modelbuild.actions.result import OutputDigest
from modelbuild.errors import ActionFailed
from modelbuild.execution.executor import LocalBlobs, PreparedAction
from modelbuild.execution.work_area import WorkArea
from modelbuild.tree import Tree, TreeFile


def write_file(prepared: PreparedAction, blobs: LocalBlobs, area: WorkArea) -> dict[str, OutputDigest]:
    """The file that a WriteTool makes of its parameters."""
    params = prepared.action.params
    content = str(params["content"]).encode()
    executable = bool(params.get("executable"))
    name = next(iter(prepared.action.outputs))
    if not executable:
        return {name: OutputDigest("file", blobs.put_bytes(content))}
    directory = area.take(prepared.key, frozenset())
    try:
        path = os.path.join(directory.tmp, "content")
        with open(path, "wb") as stream:
            stream.write(content)
        return {name: OutputDigest("file", blobs.adopt(path, executable=True), executable=True)}
    finally:
        area.give_back(directory)


def lay_out_tree(prepared: PreparedAction, blobs: LocalBlobs) -> dict[str, OutputDigest]:
    """The tree that a TreeTool makes of its inputs. Raises ActionFailed when two want one place."""
    files: dict[str, TreeFile] = {}
    for each in prepared.inputs:
        inner = each.tree.files if each.tree else (TreeFile("", each.digest, each.executable),)
        for file in inner:
            path = f"{each.name}/{file.path}" if file.path else each.name
            if path in files:
                raise ActionFailed(f"`{prepared.action.owner}` puts two files at `{path}` of its tree")
            if each.path is not None:  # A file of the workspace is no blob yet.
                blobs.put_file(os.path.join(each.path, file.path).rstrip("/"), file.digest)
            files[path] = TreeFile(path, file.digest, file.executable)
    for path in files:
        parent = os.path.dirname(path)
        while parent:
            if parent in files:
                raise ActionFailed(f"`{prepared.action.owner}`: `{parent}` is a file and a directory")
            parent = os.path.dirname(parent)
    digest = blobs.put_bytes(Tree(tuple(files[path] for path in sorted(files))).encode())
    return {next(iter(prepared.action.outputs)): OutputDigest("tree", digest)}

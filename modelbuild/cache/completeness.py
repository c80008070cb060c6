"""CompleteActionCache: a hit counts only if every blob of it is there, unaltered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from modelbuild.actions.result import ActionResult
from modelbuild.cache.action_cache import ActionCache
from modelbuild.cache.blob_store import BlobMissing, BlobStore
from modelbuild.digest import Digest
from modelbuild.tree import Tree


class CompleteActionCache:
    """An ActionCache that drops the entries whose outputs are not all in `blobs`.

    A lost log is no reason to train a model again: the entry then comes back without its log.
    """

    def __init__(self, actions: ActionCache, blobs: BlobStore) -> None:
        self._actions = actions
        self._blobs = blobs
        self.dropped: dict[str, tuple[str, ...]] = {}
        """Key of an entry that was dropped -> logical names of the outputs that were not whole."""

    def get(self, key: str) -> ActionResult | None:
        """See ActionCache. Costs a stat for each blob, and reading the manifest of each tree."""
        result = self._actions.get(key)
        if result is None:
            return None
        if lost := vanished(result, self._blobs):
            self.dropped[key] = lost
            self._actions.remove(key)
            return None
        if result.log is not None and self._blobs.missing((result.log,)):
            return replace(result, log=None)
        return result

    def put(self, key: str, result: ActionResult) -> None:
        """See ActionCache."""
        self._actions.put(key, result)

    def remove(self, key: str) -> None:
        """See ActionCache."""
        self._actions.remove(key)


def vanished(result: ActionResult, blobs: BlobStore) -> tuple[str, ...]:
    """The logical names of outputs that are not whole in `blobs`."""
    return tuple(name for name in result.outputs if not _is_whole(result, name, blobs))


def output_blobs(result: ActionResult, blobs: BlobStore) -> Iterator[Digest]:
    """Every blob that `result` rests on: outputs, manifests, the files of trees, the log.

    Raises BlobMissing for a manifest that is not there, ValueError for one that is none.
    """
    for output in result.outputs.values():
        yield output.digest
        if output.kind == "tree":
            with blobs.open(output.digest) as stream:
                yield from (file.digest for file in Tree.decode(stream.read()).files)
    if result.log is not None:
        yield result.log


def _is_whole(result: ActionResult, name: str, blobs: BlobStore) -> bool:
    output = result.outputs[name]
    if output.kind == "file":
        return not blobs.missing((output.digest,))
    try:
        with blobs.open(output.digest) as stream:
            tree = Tree.decode(stream.read())
    except (BlobMissing, ValueError):
        return False
    return not blobs.missing({file.digest for file in tree.files})

"""DiskActionCache: one small self-checking file per action key, `ac/ab/<key>`."""

from __future__ import annotations

import contextlib
import hashlib
import os

from modelbuild.actions.result import ActionResult
from modelbuild.cache.atomic_file import remove, replace_file
from modelbuild.cache.disk import TEMPORARY
from modelbuild.cache.storage_failure import storage_failure

_READ = 1 << 16
_HEADER = "modelbuild-action-1"


class DiskActionCache:
    """An ActionCache on disk. Safe for threads, and for processes that share the directory.

    An entry starts with the SHA-256 of its key and body: one that is cut short, altered or under another
    key's name is removed and is a miss. Its mtime is when it was last used, which `gc` goes by.
    """

    def __init__(self, root: str) -> None:
        """`root`: the cache's directory."""
        self.directory = f"{os.path.abspath(root)}/ac"
        self._temporary = f"{self.directory}/{TEMPORARY}"

    def get(self, key: str) -> ActionResult | None:
        """See ActionCache."""
        result = self.peek(key)
        if result is not None:
            # Only the order of gc depends on it, and a read-only cache has no gc.
            with contextlib.suppress(OSError):
                os.utime(self._path(key))
        return result

    def peek(self, key: str) -> ActionResult | None:
        """Like `get`, but does not count as use."""
        path = self._path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_failure(error, path) from error
        try:
            parts = []
            while data := os.read(fd, _READ):
                parts.append(data)
                if len(data) < _READ:
                    break
        except OSError as error:
            raise storage_failure(error, path) from error
        finally:
            os.close(fd)
        result = _decode(key, b"".join(parts))
        if result is None:
            self.remove(key)
        return result

    def put(self, key: str, result: ActionResult) -> None:
        """See ActionCache. Raises CacheError."""
        body = result.to_json()
        data = f"{_HEADER} {_check(key, body)}\n".encode() + body + b"\n"
        path = self._path(key)
        try:
            replace_file(path, data, temporary_dir=self._temporary)
        except OSError as error:
            raise storage_failure(error, path) from error

    def remove(self, key: str) -> None:
        """See ActionCache. In a read-only cache the entry stays, and is found out again."""
        with contextlib.suppress(OSError):
            remove(self._path(key))

    def _path(self, key: str) -> str:
        return f"{self.directory}/{key[:2]}/{key}"


def _check(key: str, body: bytes) -> str:
    return hashlib.sha256(key.encode() + b"\n" + body).hexdigest()


def _decode(key: str, data: bytes) -> ActionResult | None:
    first, newline, rest = data.partition(b"\n")
    header, _, check = first.partition(b" ")
    body = rest[:-1]
    if not newline or header != _HEADER.encode() or not rest.endswith(b"\n"):
        return None
    if check != _check(key, body).encode():
        return None
    try:
        return ActionResult.from_json(body)
    except ValueError:
        return None

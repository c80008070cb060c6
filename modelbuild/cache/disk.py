"""DiskBlobStore: content as plain read-only files, `cas/ab/<sha256>`, and `.x` where it is executable."""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
import time
from collections.abc import Iterable
from typing import BinaryIO

from xxhash import xxh3_128_digest

from modelbuild.cache import hashing
from modelbuild.cache.atomic_file import discard, remove, rename_into, temporary_name, write_new
from modelbuild.cache.blob_store import BlobMismatch, BlobMissing
from modelbuild.cache.fact_index import Fact, FactIndex, signature
from modelbuild.cache.file_system import sync_file_system
from modelbuild.cache.storage_failure import storage_failure
from modelbuild.digest import Digest, digest_bytes
from modelbuild.errors import ActionFailed

PLAIN_MODE = 0o444
EXECUTABLE_MODE = 0o555
EXECUTABLE_SUFFIX = ".x"
TEMPORARY = "tmp"
"""Below `cas/` and `ac/`: where files are written before they are renamed into place."""


class DiskBlobStore:
    """A BlobStore on disk. Safe for threads, and for processes that share the directory.

    A blob is trusted while its stat is the one it had when its content was last known; after any change it
    is hashed again, and moved to `quarantine/` if it is not what its name says.
    """

    def __init__(self, root: str, facts: FactIndex | None = None) -> None:
        """`root`: the cache's directory. Without `facts`, each process hashes every blob it uses once."""
        self.root = os.path.abspath(root)
        self.cas = f"{self.root}/cas"
        self.temporary = f"{self.cas}/{TEMPORARY}"
        self._quarantine_dir = f"{self.root}/quarantine"
        self._facts = facts if facts is not None else FactIndex(None)

    def path(self, digest: Digest, *, executable: bool = False) -> str | None:
        """Absolute path of the unaltered blob, with mode 0444 or 0555; None if there is none.

        Content stored with the other mode only is copied, once.
        """
        name = digest.sha256 + EXECUTABLE_SUFFIX if executable else digest.sha256
        path = f"{self.cas}/{name[:2]}/{name}"
        if self._is_good(name, path, digest):
            return path
        other_name = digest.sha256 if executable else digest.sha256 + EXECUTABLE_SUFFIX
        other = f"{self.cas}/{name[:2]}/{other_name}"
        if not self._is_good(other_name, other, digest):
            return None
        try:
            self._copy_in(other, executable=executable, expected=digest)
        except (BlobMismatch, FileNotFoundError):
            return None
        return path

    def missing(self, digests: Iterable[Digest]) -> set[Digest]:
        """See BlobStore. Costs a stat for each digest."""
        return {digest for digest in digests if not self.has(digest)}

    def has(self, digest: Digest) -> bool:
        """Whether the content is here, unaltered, with either mode."""
        name = digest.sha256
        path = f"{self.cas}/{name[:2]}/{name}"
        return self._is_good(name, path, digest) or self._is_good(
            name + EXECUTABLE_SUFFIX, path + EXECUTABLE_SUFFIX, digest
        )

    def open(self, digest: Digest) -> BinaryIO:
        """See BlobStore."""
        path = f"{self.cas}/{digest.sha256[:2]}/{digest.sha256}"
        if not self._is_good(digest.sha256, path, digest):
            path += EXECUTABLE_SUFFIX
            if not self._is_good(digest.sha256 + EXECUTABLE_SUFFIX, path, digest):
                raise BlobMissing(digest)
        try:
            return open(path, "rb")
        except FileNotFoundError:
            raise BlobMissing(digest) from None

    def read(self, digest: Digest) -> bytes:
        """The whole content. Raises BlobMissing."""
        with self.open(digest) as stream:
            return stream.read()

    def put_file(self, path: str, digest: Digest) -> None:
        """See BlobStore."""
        if not self.has(digest):
            self._copy_in(path, executable=False, expected=digest)

    def put_bytes(self, data: bytes) -> Digest:
        """Stores `data`. Raises CacheError."""
        digest = digest_bytes(data)
        if self.has(digest):
            return digest
        temporary = f"{self.temporary}/{temporary_name()}"
        try:
            try:
                write_new(temporary, data, PLAIN_MODE)
            except FileNotFoundError:
                os.makedirs(self.temporary, exist_ok=True)
                write_new(temporary, data, PLAIN_MODE)
            self._move_in(temporary, digest.sha256, digest, xxh3_128_digest(data, self._facts.seed))
        except OSError as error:
            discard(temporary)
            raise storage_failure(error, self.cas) from error
        return digest

    def adopt(self, path: str, *, executable: bool = False) -> Digest:
        """Moves the finished file at `path` into the store; afterwards it is gone from there.

        A file with other names (hardlinks) or on another file system is copied. A symlink's target is
        copied. Raises CacheError when the store cannot be written, ActionFailed for what is not a file.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            digest = self._copy_in(path, executable=executable)
            os.unlink(path)
            return digest
        try:
            stat = os.fstat(fd)
            if not stat_module.S_ISREG(stat.st_mode):
                raise ActionFailed(f"`{path}` is not a regular file")
            if stat.st_nlink > 1:
                digest = self._copy_in(path, executable=executable)
                os.unlink(path)
                return digest
            try:
                fact = hashing.observe(fd, self._facts.seed)
            except OSError as error:
                raise storage_failure(error, path) from error
            digest = fact.digest
            name = digest.sha256 + EXECUTABLE_SUFFIX if executable else digest.sha256
            target = f"{self.cas}/{name[:2]}/{name}"
            if self._is_good(name, target, digest):
                os.unlink(path)
                return digest
            try:
                os.fchmod(fd, EXECUTABLE_MODE if executable else PLAIN_MODE)
                rename_into(path, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise storage_failure(error, target) from error
                digest = self._copy_in(path, executable=executable)
                os.unlink(path)
                return digest
            # chmod and rename change ctime, so only now is the stat the one to remember. Had someone
            # written meanwhile, size or mtime would differ from what was hashed.
            after = signature(os.fstat(fd))
            if after[:2] == fact.signature[:2] and fact.checked_ns:
                self._facts.put(name, Fact(after, fact.checked_ns, digest, fact.xxh3))
        finally:
            os.close(fd)
        return digest

    def quarantine(self, digest: Digest) -> None:
        """Takes the blob out of the store, into `quarantine/`, whatever its content is."""
        for name in (digest.sha256, digest.sha256 + EXECUTABLE_SUFFIX):
            self._quarantine(name, f"{self.cas}/{name[:2]}/{name}")

    def sync(self) -> None:
        """Waits until everything adopted before is on disk, and remembers that it is.

        Blobs adopted later than the last call are hashed once more if the machine reboots.
        """
        facts = self._facts.unsynced()
        if all(key.startswith("/") for key in facts):
            return  # Nothing but digests of sources: they are nobody's only copy.
        try:
            sync_file_system(self.root)
        except OSError as error:
            raise storage_failure(error, self.root) from error
        self._facts.sync_done(facts)

    def load_facts(self) -> None:
        """Reads all recorded facts at once; worth it before thousands of lookups."""
        self._facts.load(sources=False)

    def _is_good(self, name: str, path: str, digest: Digest) -> bool:
        try:
            stat = os.lstat(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise storage_failure(error, path) from error
        now = signature(stat)
        fact = self._facts.get(name)
        if fact is not None and fact.signature == now and fact.digest == digest:
            return True
        return self.recheck(name, path, digest, fact)

    def recheck(self, name: str, path: str, digest: Digest, known: Fact | None = None) -> bool:
        """Whether the file's content is `digest`, by reading it; quarantined if it is not."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise storage_failure(error, path) from error
            self._quarantine(name, path)
            return False
        try:
            stat = os.fstat(fd)
            if stat_module.S_ISREG(stat.st_mode):
                self._protect(fd, stat, name)
                fact = None
                if known is not None and known.digest == digest:
                    fact = hashing.unchanged_content(fd, known, self._facts.seed)
                if fact is None:
                    fact = hashing.observe(fd, self._facts.seed)
                if fact.digest == digest and fact.checked_ns:
                    self._facts.put(name, fact)
                    return True
                if fact.digest.sha256 == digest.sha256:
                    # The blob is fine; it is the size in `digest` that is not.
                    return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise storage_failure(error, path) from error
            # A disk that cannot read the blob any more: it is lost, like one that is altered.
        finally:
            os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            # Another process may have put a good file there while this one was read.
            if os.lstat(path).st_ino == stat.st_ino:
                self._quarantine(name, path)
        return False

    def _protect(self, fd: int, stat: os.stat_result, name: str) -> None:
        mode = EXECUTABLE_MODE if name.endswith(EXECUTABLE_SUFFIX) else PLAIN_MODE
        if stat_module.S_IMODE(stat.st_mode) != mode:
            # In a cache that belongs to someone else the mode stays as it is.
            with contextlib.suppress(PermissionError, OSError):
                os.fchmod(fd, mode)

    def _quarantine(self, name: str, path: str) -> None:
        self._facts.remove(name)
        # In a read-only cache it stays where it is, and is found out again.
        with contextlib.suppress(OSError):
            os.makedirs(self._quarantine_dir, exist_ok=True)
            os.rename(path, f"{self._quarantine_dir}/{name}.{temporary_name()}")

    def _copy_in(self, path: str, *, executable: bool, expected: Digest | None = None) -> Digest:
        """Stores a copy of the file at `path`. Raises BlobMismatch if `expected` is not its digest."""
        temporary = f"{self.temporary}/{temporary_name()}"
        reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat_module.S_ISREG(os.fstat(reader).st_mode):
                raise ActionFailed(f"`{path}` is not a regular file")  # noqa: TRY301
            os.makedirs(self.temporary, exist_ok=True)
            _copy(reader, temporary, EXECUTABLE_MODE if executable else PLAIN_MODE)
            fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fact = hashing.observe(fd, self._facts.seed)
            finally:
                os.close(fd)
            if expected is not None and fact.digest != expected:
                raise BlobMismatch(expected, fact.digest)  # noqa: TRY301
            name = fact.digest.sha256 + EXECUTABLE_SUFFIX if executable else fact.digest.sha256
            if self._is_good(name, f"{self.cas}/{name[:2]}/{name}", fact.digest):
                remove(temporary)
            else:
                self._move_in(temporary, name, fact.digest, fact.xxh3)
        except OSError as error:
            discard(temporary)
            raise storage_failure(error, self.cas) from error
        except BaseException:
            discard(temporary)
            raise
        finally:
            os.close(reader)
        return fact.digest

    def _move_in(self, temporary: str, name: str, digest: Digest, xxh3: bytes) -> None:
        target = f"{self.cas}/{name[:2]}/{name}"
        rename_into(temporary, target)
        with contextlib.suppress(FileNotFoundError):
            self._facts.put(name, Fact(signature(os.lstat(target)), time.time_ns(), digest, xxh3))


def _copy(reader: int, target: str, mode: int) -> None:
    """Copies an open file, by reflink where the file system can."""
    writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            while os.copy_file_range(reader, writer, 1 << 30):
                pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            os.lseek(reader, 0, os.SEEK_SET)
            os.lseek(writer, 0, os.SEEK_SET)
            os.ftruncate(writer, 0)
            while data := os.read(reader, hashing.CHUNK):
                view = memoryview(data)
                while view:
                    view = view[os.write(writer, view) :]
        os.fchmod(writer, mode)
    finally:
        os.close(writer)

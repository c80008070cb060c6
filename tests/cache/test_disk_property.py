"""Whatever happens to a disk store, what it hands out is what was asked for."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from modelbuild.cache.disk import DiskBlobStore
from modelbuild.cache.fact_index import FactIndex
from modelbuild.digest import digest_bytes

contents = st.sampled_from([b"", b"a", b"bb", b"cc", b"model" * 1000])


class StoreUnderAttack(RuleBasedStateMachine):
    """Adopts, damages, deletes, restarts with and without saved facts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.mkdtemp(prefix="modelbuild-test-")
        self.stored: set[bytes] = set()
        self.reopen()

    def reopen(self) -> None:
        self.store = DiskBlobStore(self.root, FactIndex(f"{self.root}/index.sqlite"))

    def teardown(self) -> None:
        self.store._facts.close()
        shutil.rmtree(self.root)

    def files(self) -> list[str]:
        return [str(path) for path in sorted(Path(self.root, "cas").glob("??/*"))]

    @rule(content=contents, executable=st.booleans())
    def adopt(self, content: bytes, executable: bool) -> None:
        path = f"{self.root}/output"
        Path(path).write_bytes(content)
        assert self.store.adopt(path, executable=executable) == digest_bytes(content)
        self.stored.add(content)

    @rule(content=contents)
    def put(self, content: bytes) -> None:
        assert self.store.put_bytes(content) == digest_bytes(content)
        self.stored.add(content)

    @rule(index=st.integers(0, 20), content=contents, keep_times=st.booleans())
    def overwrite(self, index: int, content: bytes, keep_times: bool) -> None:
        files = self.files()
        if files:
            path = files[index % len(files)]
            before = os.stat(path)
            os.chmod(path, 0o644)
            Path(path).write_bytes(content)
            if keep_times:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            self.stored = set()

    @rule(index=st.integers(0, 20))
    def delete(self, index: int) -> None:
        files = self.files()
        if files:
            os.unlink(files[index % len(files)])
            self.stored = set()

    @rule(index=st.integers(0, 20), other=st.integers(0, 20))
    def swap(self, index: int, other: int) -> None:
        files = self.files()
        if files:
            os.replace(files[index % len(files)], files[other % len(files)])
            self.stored = set()

    @rule(save=st.booleans())
    def restart(self, save: bool) -> None:
        if save:
            self.store._facts.close()
        self.reopen()

    @rule(content=contents, executable=st.booleans())
    def ask(self, content: bytes, executable: bool) -> None:
        digest = digest_bytes(content)
        path = self.store.path(digest, executable=executable)
        if path is None:
            assert content not in self.stored
        else:
            assert Path(path).read_bytes() == content
            assert os.stat(path).st_mode & 0o777 == (0o555 if executable else 0o444)

    @invariant()
    def what_was_stored_since_the_last_attack_is_there(self) -> None:
        assert self.store.missing(digest_bytes(content) for content in self.stored) == set()


TestStoreUnderAttack = StoreUnderAttack.TestCase
TestStoreUnderAttack.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)

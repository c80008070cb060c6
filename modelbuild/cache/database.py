"""Database: a small sqlite file of facts that may be lost, but never break or mislead a build."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import quote

_BUSY_S = 2.0


def is_storable(text: str) -> bool:
    """Whether sqlite takes `text`: not so the names of files that are no UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class Database:
    """A sqlite file opened on first use, from any thread.

    A file that is damaged is deleted and made anew; where nothing can be written, reads see what the file
    holds and writes go nowhere; when another process holds the lock for two seconds, writes are dropped.
    Each of these leaves a sentence in `notes`, for the driver to show. Because writes may be dropped, only
    facts that can be found out again belong here.
    """

    def __init__(self, path: str | None, schema: str, *, notes: list[str] | None = None) -> None:
        """`path`: None keeps everything in memory. `schema`: statements that may run again and again."""
        self.path = path
        self.notes: list[str] = [] if notes is None else notes
        self._schema = schema
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._read_only = False
        self._renewals = 0

    def read(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; none when the file cannot be read."""
        with self._lock:
            for _ in range(3):
                try:
                    return self._open().execute(statement, parameters).fetchall()
                except sqlite3.Error as error:
                    if not self._recover(error):
                        return []
            return []

    def write(self, change: Callable[[sqlite3.Connection], None]) -> bool:
        """Runs `change` in one transaction. False when it was dropped."""
        with self._lock:
            for _ in range(3):
                try:
                    connection = self._open()
                    if self._read_only:
                        return False
                    connection.execute("BEGIN IMMEDIATE")
                    try:
                        change(connection)
                    except BaseException:
                        connection.rollback()
                        raise
                    connection.commit()
                except sqlite3.Error as error:
                    if not self._recover(error):
                        return False
                else:
                    return True
            return False

    def write_rows(self, statement: str, rows: Iterable[Sequence[Any]]) -> bool:
        """Runs `statement` for each of `rows`, in one transaction. False when it was dropped."""
        listed = list(rows)

        def change(connection: sqlite3.Connection) -> None:
            connection.executemany(statement, listed)

        return self.write(change)

    def close(self) -> None:
        """Closes the file. It opens again when it is used again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None:
            self.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        if self.path is None:
            return self._prepared(sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None))
        directory = os.path.dirname(self.path)
        exists = os.path.exists(self.path)
        if os.access(self.path if exists else directory, os.W_OK) and os.access(directory, os.W_OK):
            connection = sqlite3.connect(
                self.path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None
            )
            try:
                return self._prepared(connection)
            except sqlite3.Error:
                connection.close()
                raise
        self._read_only = True
        if exists:
            # A WAL file on a read-only file system can only be opened as immutable; what is still in the
            # log is then not seen, which is a lost fact and no wrong one.
            for mode in ("mode=ro", "mode=ro&immutable=1"):
                connection = sqlite3.connect(
                    f"file:{quote(self.path)}?{mode}", uri=True, check_same_thread=False, isolation_level=None
                )
                try:
                    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
                except sqlite3.Error:
                    connection.close()
                else:
                    return connection
        connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        connection.executescript(self._schema)
        return connection

    def _prepared(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        # synchronous=OFF: a power cut may damage the file, and then it is made anew.
        _switch_to_wal(connection)
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(self._schema)
        return connection

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _recover(self, error: sqlite3.Error) -> bool:
        """Whether trying again makes sense: True after a damaged file was replaced."""
        if isinstance(error, sqlite3.OperationalError):
            code = getattr(error, "sqlite_errorcode", None)
            primary = None if code is None else code & 0xFF
            if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                self._note(f"`{self.path}` was busy; some facts were not remembered")
                return False
            if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                self._note(f"`{self.path}` cannot be written ({error}); facts are not remembered")
                if self._connection is None and self.path is not None:
                    self.path = None
                    return True
                return False
        elif not isinstance(error, sqlite3.DatabaseError) or isinstance(error, sqlite3.ProgrammingError):
            raise error
        self.close()
        if self.path is None:
            return False
        self._renewals += 1
        if self._read_only or self._renewals > 1:
            self._note(f"`{self.path}` cannot be used ({error}); facts are not remembered")
            self.path = None
            return True
        self._note(f"`{self.path}` was damaged ({error}) and has been made anew")
        for suffix in ("", "-wal", "-shm"):
            # What cannot be deleted cannot be opened either, and then memory takes its place.
            with contextlib.suppress(OSError):
                os.unlink(self.path + suffix)
        return True


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Two processes that make a file at once meet here, and sqlite does not wait on its own."""
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return

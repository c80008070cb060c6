"""Trace: what each output was made of, run by run. It answers `explain`; no artifact needs it.

Workspaces that share a cache have histories of their own: their outputs may have the same names. The name of
a workspace is its directory. What was recorded before workspaces were told apart, and by workspaces that are
no longer where they were (moved, or a checkout that is gone), is taken by one that has no record of its own.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from modelbuild.actions.result import ActionResult
from modelbuild.cache.database import Database, is_storable
from modelbuild.events import Outcome

KEPT_RUNS = 20
"""How many runs of each output are kept, about."""
KEPT_OF_ALL = 5 * KEPT_RUNS
"""How many of those of one name are kept over all workspaces: checkouts come and go."""

_TRIM_ONE_IN = 8
_SHARED_PARTS = ("tool", "platform")
"""Parts of the detail that many actions have in common: stored once, under the component's digest."""

_SEPARATOR = "\n"
"""Between path and workspace in the column `output`, which so names an output of one workspace."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, output TEXT NOT NULL, label TEXT NOT NULL, outcome TEXT NOT NULL,
    time_s REAL NOT NULL, duration_s REAL NOT NULL, peak_rss_bytes INTEGER NOT NULL,
    run TEXT NOT NULL, result TEXT);
CREATE INDEX IF NOT EXISTS runs_output ON runs (output);
CREATE INDEX IF NOT EXISTS runs_label ON runs (label);
CREATE TABLE IF NOT EXISTS parts (digest TEXT PRIMARY KEY, part TEXT NOT NULL) WITHOUT ROWID;
"""
_AFTER_SEPARATOR = chr(ord(_SEPARATOR) + 1)
_COLUMNS = "output, label, outcome, time_s, duration_s, peak_rss_bytes, run, result"
_INSERT = f"INSERT INTO runs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One action in one build.

    output_path: of its primary output; names the action from build to build.
    components: component name -> 64 hex digits, as in ActionKey.
    detail: plain JSON that says what the components were, for `explain`:
        `params`  the action's parameters, by name;
        `tool`    {"files": {name: sha256}, "distributions": {name: version}, "python": "3.11", ...};
        `inputs`  logical name -> [kind, sha256], a program's with true as third, or sha256;
        `outputs` logical name -> kind;
        `threads` how many it may use;
        `platform` the constraint values.
    time_s: seconds since the epoch. host: the machine it ran on. reason: as `explain` said it then.
    """

    output_path: str
    label: str
    mnemonic: str
    time_s: float
    key: str
    components: Mapping[str, str]
    detail: Mapping[str, Any]
    outcome: Outcome
    result: ActionResult | None = None
    duration_s: float = 0.0
    peak_rss_bytes: int = 0
    host: str = ""
    reason: str = ""


class Cost(NamedTuple):
    """What an action's last execution took."""

    duration_s: float
    peak_rss_bytes: int


class Trace:
    """The runs of every output, in sqlite; written in batches. Safe to use from several threads."""

    def __init__(self, path: str | None, *, workspace: str = "", notes: list[str] | None = None) -> None:
        """`path`: None keeps everything in memory. workspace: its directory, whose history this is."""
        self._workspace = workspace
        self._database = Database(path, _SCHEMA, notes=notes)
        self._lock = threading.Lock()
        self._pending: list[TraceRow] = []
        self._pending_last: dict[str, TraceRow] = {}
        self._estimates: dict[str, Cost] | None = None
        self._stored_parts: set[str] = set()
        self._parts: dict[str, Any] = {}

    def record(self, row: TraceRow) -> None:
        """Remembers a run; it is on disk after the next `flush`."""
        if not is_storable(row.output_path + row.label + self._workspace):
            return
        with self._lock:
            self._pending.append(row)
            self._pending_last[row.output_path] = row
            if self._estimates is not None and row.outcome == "executed":
                self._estimates[row.output_path] = Cost(row.duration_s, row.peak_rss_bytes)

    def latest(self, output_path: str) -> TraceRow | None:
        """The last run of an output, whatever came of it."""
        pending = self._pending_last.get(output_path)
        return pending or self._last(output_path)

    def latest_executed(self, output_path: str) -> TraceRow | None:
        """The last run of an output that executed its action and succeeded."""
        pending = self._pending_last.get(output_path)
        if pending is not None:
            if pending.outcome == "executed":
                return pending
            self.flush()
        return self._last(output_path, "AND outcome = 'executed'")

    def history(self, label: str) -> list[TraceRow]:
        """The runs of all actions of a target, newest first."""
        self.flush()
        rows = self._database.read(f"SELECT {_COLUMNS} FROM runs WHERE label = ? ORDER BY id DESC", (label,))  # noqa: S608
        own = [row for row in rows if _workspace_of(row[0]) == self._workspace]
        decoded = (self._decode(row) for row in own or filter(self._is_anyones, rows))
        return [row for row in decoded if row is not None]

    def estimates(self) -> Mapping[str, Cost]:
        """Output path -> what its last execution took. Read once, then kept up to date by `record`."""
        if self._estimates is None:
            self.flush()
            with self._lock:
                self._estimates = self._stored_estimates()
        return self._estimates

    def _stored_estimates(self) -> dict[str, Cost]:
        """Of an output that this workspace never made, what another's of the same name took, as a guess."""
        rows = self._database.read(
            "SELECT output, duration_s, peak_rss_bytes, max(id) FROM runs "
            "WHERE outcome = 'executed' GROUP BY output"
        )
        found: dict[str, Cost] = {}
        own: dict[str, Cost] = {}
        for output, duration_s, peak, _ in rows:
            path, _, workspace = output.partition(_SEPARATOR)
            (own if workspace == self._workspace else found)[path] = Cost(duration_s, peak)
        return found | own

    def flush(self) -> None:
        """Writes what was recorded, in one transaction; dropped when the file cannot be written."""
        with self._lock:
            rows, self._pending = self._pending, []
            self._pending_last = {}
            if not rows:
                return
            parts: dict[str, str] = {}
            encoded = [self._encode(row, parts) for row in rows]

            def change(connection: Any) -> None:
                connection.executemany("INSERT OR IGNORE INTO parts VALUES (?, ?)", parts.items())
                connection.executemany(_INSERT, encoded)
                last_id = connection.execute("SELECT max(id) FROM runs").fetchone()[0]
                self._trim(connection, rows, last_id)

            if self._database.write(change):
                self._stored_parts.update(parts)
                for digest in parts:
                    self._parts.pop(digest, None)

    def close(self) -> None:
        """Writes what was recorded and closes the file."""
        self.flush()
        self._database.close()

    def _trim(self, connection: Any, rows: list[TraceRow], last_id: int) -> None:
        """Forgets old runs, of every eighth output or so: trimming costs as much as writing."""
        for number, row in enumerate(rows, last_id - len(rows) + 1):
            if number % _TRIM_ONE_IN == 0:
                path = row.output_path
                connection.execute(
                    "DELETE FROM runs WHERE output = ?1 AND id <= "
                    "(SELECT id FROM runs WHERE output = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                    (self._name(path), KEPT_RUNS),
                )
                connection.execute(
                    "DELETE FROM runs WHERE output >= ?1 AND output < ?2 AND id <= "
                    "(SELECT id FROM runs WHERE output >= ?1 AND output < ?2 "
                    "ORDER BY id DESC LIMIT 1 OFFSET ?3)",
                    (path, f"{path}{_AFTER_SEPARATOR}", KEPT_OF_ALL),
                )

    def _name(self, output_path: str) -> str:
        return f"{output_path}{_SEPARATOR}{self._workspace}" if self._workspace else output_path

    def _is_anyones(self, row: tuple[Any, ...]) -> bool:
        workspace = _workspace_of(row[0])
        return not workspace or not os.path.isdir(workspace)

    def _last(self, output_path: str, condition: str = "") -> TraceRow | None:
        rows = self._database.read(
            f"SELECT {_COLUMNS} FROM runs WHERE output = ? {condition} ORDER BY id DESC LIMIT 1",  # noqa: S608
            (self._name(output_path),),
        )
        if not rows:
            others = self._database.read(
                f"SELECT {_COLUMNS} FROM runs WHERE (output = ?1 OR output > ?2 AND output < ?3) "  # noqa: S608
                f"{condition} ORDER BY id DESC",
                (output_path, f"{output_path}{_SEPARATOR}", f"{output_path}{_AFTER_SEPARATOR}"),
            )
            rows = list(islice(filter(self._is_anyones, others), 1))
        return self._decode(rows[0]) if rows else None

    def _part(self, digest: str | None) -> Any:
        if digest is None:
            return None
        if digest not in self._parts:
            rows = self._database.read("SELECT part FROM parts WHERE digest = ?", (digest,))
            self._parts[digest] = json.loads(rows[0][0]) if rows else None
        return self._parts[digest]

    def _encode(self, row: TraceRow, parts: dict[str, str]) -> tuple[Any, ...]:
        detail = dict(row.detail)
        for name in _SHARED_PARTS:
            digest = row.components.get(name)
            if digest and name in detail:
                part = detail.pop(name)
                if digest not in self._stored_parts and digest not in parts:
                    parts[digest] = _compact(part)
        run = [row.mnemonic, row.key, dict(row.components), detail, row.host, row.reason]
        return (
            self._name(row.output_path),
            row.label,
            row.outcome,
            row.time_s,
            row.duration_s,
            row.peak_rss_bytes,
            _compact(run),
            row.result.to_json().decode() if row.result else None,
        )

    def _decode(self, row: tuple[Any, ...]) -> TraceRow | None:
        output_path, label, outcome, time_s, duration_s, peak_rss_bytes, run, result = row
        try:
            mnemonic, key, components, detail, host, reason = json.loads(run)
            for name in _SHARED_PARTS:
                if (part := self._part(components.get(name))) is not None:
                    detail[name] = part
            return TraceRow(
                output_path.partition(_SEPARATOR)[0],
                label,
                mnemonic,
                time_s,
                key,
                components,
                detail,
                outcome,
                ActionResult.from_json(result.encode()) if result else None,
                duration_s,
                peak_rss_bytes,
                host,
                reason,
            )
        except (ValueError, TypeError, AttributeError):
            return None


def _workspace_of(name: str) -> str:
    return name.partition(_SEPARATOR)[2]


_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


def _compact(value: Any) -> str:
    return _ENCODER.encode(value)

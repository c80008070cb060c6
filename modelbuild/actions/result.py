"""ActionResult: what an action made, as the action cache stores it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modelbuild.digest import Digest

RESULT_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class OutputDigest:
    """One output: a file, or a tree whose digest is that of its manifest (see modelbuild.tree)."""

    kind: Literal["file", "tree"]
    digest: Digest
    executable: bool = False


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The outputs of one successful run, by logical name, and what it cost."""

    outputs: Mapping[str, OutputDigest]
    log: Digest | None = None
    duration_s: float = 0.0
    peak_rss_bytes: int = 0

    def to_json(self) -> bytes:
        """Canonical JSON: what lies on disk and in a remote action cache."""
        data: dict[str, Any] = {
            "schema": RESULT_SCHEMA,
            "outputs": {
                name: [o.kind, o.digest.sha256, o.digest.size, o.executable]
                for name, o in self.outputs.items()
            },
            "log": [self.log.sha256, self.log.size] if self.log else None,
            "duration_s": round(self.duration_s, 6),
            "peak_rss_bytes": self.peak_rss_bytes,
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ActionResult:
        """Decode; raises ValueError when it is not an entry of this schema."""
        try:
            raw = json.loads(data)
            if raw["schema"] != RESULT_SCHEMA:
                raise ValueError(f"schema {raw['schema']}, expected {RESULT_SCHEMA}")
            return cls(
                outputs={
                    name: OutputDigest(kind, Digest(sha, size), executable)
                    for name, (kind, sha, size, executable) in raw["outputs"].items()
                },
                log=Digest(*raw["log"]) if raw["log"] else None,
                duration_s=raw["duration_s"],
                peak_rss_bytes=raw["peak_rss_bytes"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an action result: {error}") from error


@dataclass(frozen=True, slots=True)
class StandingResult:
    """The last key and result of an action that rests on nothing that has changed since."""

    key: str
    result: ActionResult

"""ActionCache: the result of an action by its key."""

from __future__ import annotations

from typing import Protocol

from modelbuild.actions.result import ActionResult


class ActionCache(Protocol):
    """Remembers results of successful actions. Keys are 64 hex digits. Safe to use from several threads."""

    def get(self, key: str) -> ActionResult | None:
        """The result stored for `key`; None when there is none that can be trusted."""

    def put(self, key: str, result: ActionResult) -> None:
        """Stores `result`, whose blobs are stored already. Call it after a miss, holding the key's lock."""

    def remove(self, key: str) -> None:
        """Forgets `key`. A cache that others own may ignore this."""

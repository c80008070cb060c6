"""What is written down of an action that ran or came from a cache."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from typing import Any

from modelbuild.actions.action import Action
from modelbuild.cache.trace import TraceRow
from modelbuild.execution.world import Settled

_HOST = platform.node()


def new_row(action: Action, settled: Settled, detail: Mapping[str, Any], reason: str) -> TraceRow:
    """The trace row of an action that has just been settled."""
    result = settled.result
    return TraceRow(
        output_path=action.primary_output.path,
        label=str(action.owner),
        mnemonic=action.mnemonic,
        time_s=time.time(),
        key=settled.key.sha256,
        components=settled.key.components,
        detail=detail,
        outcome=settled.outcome,
        result=result,
        duration_s=result.duration_s if result else 0.0,
        peak_rss_bytes=result.peak_rss_bytes if result else 0,
        host=_HOST,
        reason=reason,
    )

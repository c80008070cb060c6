"""build(): one request, from what is known already to an outcome.

The way that is taken is the cheapest that is right:

1. every fact of the last finished build of this request still holds: done, nothing is loaded;
2. the BUILD files still hold, a source, an output or the environment does not: the stored action graph is
   taken up, and only actions that rest on a change are looked at;
3. else BUILD files are evaluated and rules run.
"""

from __future__ import annotations

import sys
import time

from modelbuild import __version__
from modelbuild.driver.request import BuildOutcome, BuildRequest
from modelbuild.driver.snapshot import Difference, SnapshotFiles, compare
from modelbuild.errors import ExitCode, ModelbuildError
from modelbuild.events import BuildFinished, BuildStarted, Event, EventSink


def build(request: BuildRequest, sink: EventSink) -> BuildOutcome:
    """Build what is asked for; everything that happens goes to `sink`, and the last event is BuildFinished.

    Raises ModelbuildError for what is no action's fault: a wrong BUILD file, a full disk.
    """
    started = time.monotonic()

    def clock() -> float:
        return time.monotonic() - started

    told = False

    def observe(event: Event) -> None:
        nonlocal told
        told = told or isinstance(event, BuildFinished)
        sink(event)

    sink(BuildStarted(clock(), request.command, request.patterns, request.jobs, __version__))
    files = SnapshotFiles(request.cache_dir, request, [__version__, sys.version, sys.prefix])
    try:
        facts = files.facts()
        difference = Difference(loading=True)
        if facts is not None and not request.check and not request.toolchain_debug:
            difference = compare(facts, request.root, request.output_root, request.own_paths)
            if not difference:
                from modelbuild.driver.up_to_date import answer_from_facts  # noqa: PLC0415 - not always needed

                return answer_from_facts(request, facts, files, observe, clock)
        from modelbuild.driver.execute import execute  # noqa: PLC0415 - a null build must not pay for it

        return execute(request, files, facts, difference, observe, clock)
    except KeyboardInterrupt:
        sink(_aborted(clock(), ExitCode.INTERRUPTED))
        return BuildOutcome(ExitCode.INTERRUPTED)
    except ModelbuildError as error:
        if not told:
            sink(_aborted(clock(), error.exit_code))
        raise


def _aborted(now: float, exit_code: ExitCode) -> BuildFinished:
    return BuildFinished(now, 0, 0, 0, 0, 0, now, int(exit_code))

"""From a request to its analysis: BUILD files are evaluated and rules run."""

from __future__ import annotations

from collections.abc import Callable

from modelbuild.analysis.analyze import Analysis, analyze
from modelbuild.driver.request import BuildRequest
from modelbuild.errors import ModelbuildError
from modelbuild.loading.load import load_graph
from modelbuild.loading.package import TargetGraph
from modelbuild.loading.workspace import open_workspace


def load_and_analyze(
    request: BuildRequest,
    tell: Callable[[str], None] = lambda _: None,
    keep: Callable[[ModelbuildError], None] | None = None,
) -> tuple[TargetGraph, Analysis]:
    """What the request names, and all it needs. Raises LoadError and AnalysisError.

    tell: takes how each toolchain was chosen, if the request asks for that. keep: takes the errors that
    loading and analysis went on after, if the request wants that; without it they end at the first.
    """
    keep_going = request.keep_going and keep is not None
    targets = load_graph(
        open_workspace(str(request.root)),
        request.patterns,
        working_package=request.working_package,
        tests_only=request.command == "test",
        options=request.options,
        keep_going=keep_going,
    )
    if keep is not None:
        for error in targets.errors:
            keep(error)
    told = (tell,) if request.toolchain_debug else ()
    analysis = analyze(targets, *told, keep_going=keep_going)
    if keep is not None:
        for error in analysis.errors:
            if error not in targets.errors:  # Of a branch that leads to what is known to be wrong.
                keep(error)
    return targets, analysis

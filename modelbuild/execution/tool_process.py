"""The forked child that runs one Python tool. Imported by the worker, before it forks."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import importlib.util
import io
import json
import os
import random
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from modelbuild.toolkit.request import Request, call_tool


def run_tool(request: dict[str, Any], progress: int | None) -> NoReturn:
    """Run a Python tool in this process, and end it with the tool's exit code."""
    os.environ.clear()
    os.environ.update(request["environment"])
    if progress is not None:
        os.environ["MODELBUILD_PROGRESS_FD"] = str(progress)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    seed_everything()
    _limit_threads(request["threads"])
    tool = Path(request["tool"])
    compile_afresh((str(tool.parent),))

    code = 1
    try:
        with open("request.json", "rb") as file:
            data = json.load(file)
        # Relative paths: a tool that writes one into its output still writes the same bytes everywhere.
        code = call_tool(tool, Request.from_json(data, Path()))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    except BaseException as error:  # noqa: BLE001 - it becomes the log and the exit code
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != str(tool):
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace or error.__traceback__)
    _finish()
    os._exit(code)


def seed_everything() -> None:
    """Give every random number generator that starts from the clock or the kernel a fixed seed.

    A tool seeds what it draws from; this is for what its libraries draw without being asked. What is not
    imported yet is seeded when it is, so that preloading changes speed and nothing else.
    """
    random.seed(0)
    for name, seed in _SEEDS.items():
        if name in sys.modules:
            seed(sys.modules[name])
        else:
            sys.meta_path.insert(0, _SeedOnImport(name, seed))


_SEEDS: dict[str, Callable[[Any], object]] = {
    "numpy.random": lambda module: module.seed(0),
    "torch": lambda module: module.manual_seed(0),
}


class _SeedOnImport(MetaPathFinder):
    """Finds nothing itself; seeds `name` after others have found and run it."""

    def __init__(self, name: str, seed: Callable[[Any], object]) -> None:
        self._name = name
        self._seed = seed

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        loader = spec.loader if spec is not None else None
        if spec is None or loader is None:
            return spec
        execute = loader.exec_module

        def exec_and_seed(module: ModuleType) -> None:
            execute(module)
            self._seed(module)

        loader.exec_module = exec_and_seed  # type: ignore[method-assign]
        return spec


def _limit_threads(threads: int) -> None:
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)


def _finish() -> None:
    """What a normal exit does for a program's data, without tearing down what the worker imported."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    atexit._run_exitfuncs()  # noqa: SLF001
    for each in gc.get_objects():
        if type(each) in (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom) and not each.closed:
            with contextlib.suppress(OSError, ValueError):
                each.flush()


def compile_afresh(folders: tuple[str, ...]) -> None:
    """Compile modules below `folders` from their source, always.

    A .pyc counts as fresh when its source has the same size and the same mtime in whole seconds: an
    edit within a second would run the old code under the new key. Nor are .pyc files left in a workspace.
    """
    original = SourceFileLoader.path_stats
    prefixes = tuple(folder.rstrip("/") + "/" for folder in folders)

    def path_stats(self: SourceFileLoader, path: Any) -> Any:
        if str(path).startswith(prefixes):
            raise OSError("compiled from source")
        return original(self, path)

    SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign]

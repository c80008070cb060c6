"""`modelbuild`: picks the command, runs it, and turns what goes wrong into a message and an exit code.

Nothing heavy is imported here: each command is a module of its own, imported when it is called.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType

from modelbuild.cli.terminal import ColorMode, Environment, Terminal, paint_error
from modelbuild.errors import ExitCode, ModelbuildError, UsageError

COMMANDS: dict[str, str] = {
    "build": "Build targets",
    "test": "Build and run tests and gates",
    "run": "Build a target and run it",
    "matrix": "Build an artifact for every device and show how good each is",
    "query": "Ask about the target graph",
    "cquery": "Ask about configured targets",
    "aquery": "Show the actions of targets",
    "size": "Show what models take on disk and in memory",
    "explain": "Say why a target ran, or would run",
    "affected": "List the targets that a change touches",
    "cache": "Show, shrink or verify the local cache",
    "log": "Show the log of a target's last run",
    "init": "Make a workspace that builds",
    "info": "Show versions and paths",
    "help": "Explain commands and rules",
    "completion": "Print a completion script for a shell",
    "version": "Print the version",
}
HIDDEN_COMMANDS = ("complete",)

EXIT_BUG = 70
"""An exception that is no ModelbuildError: a bug in modelbuild (EX_SOFTWARE of sysexits.h)."""
EXIT_BROKEN_PIPE = 141
"""Whoever read our output went away; what a shell reports for SIGPIPE."""


def command_module(name: str) -> ModuleType:
    """The module of a command: `configure(parser)`, `run(args, terminal)`, SUMMARY and USAGE."""
    return importlib.import_module(f"modelbuild.cli.{name}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code and raises nothing."""
    gc.set_threshold(100_000, 50, 50)  # Ten thousand actions are no garbage; looking for it costs a tenth.
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _speak_utf8()
        _own_streams()
    terminal = Terminal(Environment.read(os.environ), _color(words))
    ends = (signal.SIGTERM, signal.SIGHUP) if _is_main_thread() else ()
    heard = [number for number in ends if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores one
    previous = {number: signal.signal(number, _terminate) for number in heard}
    try:
        return _run(words, terminal, exits=argv is None)
    except BrokenPipeError:
        # Python flushes stdout once more at exit; give it somewhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return _report_bug(words, terminal)
        with contextlib.suppress(OSError):  # It may be stderr that is full.
            terminal.say(
                paint_error(terminal, "error: what was to be shown cannot be written: the device is full")
            )
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return int(ExitCode.ENVIRONMENT)
    except Exception:  # noqa: BLE001  # the last line of defence: a bug is reported, never hidden
        return _report_bug(words, terminal)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _run(words: list[str], terminal: Terminal, *, exits: bool) -> int:
    """The exit code of a command. exits: whether the process ends with it."""
    try:
        code = _dispatch(words, terminal)
        terminal.out.flush()
    except ModelbuildError as error:
        terminal.say(paint_error(terminal, str(error)))
        code = error.exit_code
    except KeyboardInterrupt:
        terminal.say("interrupted")
        code = ExitCode.INTERRUPTED
    if code == ExitCode.INTERRUPTED and exits:
        # Python would end itself by SIGINT where the interrupt met an exec(), as that of a dataclass.
        atexit.register(os._exit, int(code))
    return int(code)


def _speak_utf8() -> None:
    """Start again in UTF-8 where Python would know names of files in another encoding.

    BUILD files are UTF-8 and so are the names in them. Under a locale that is not installed Python falls back
    to ASCII, in which those files can be neither opened nor shown.
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - ourselves


def _own_streams() -> None:
    """Open what was closed when we were started, and let every name be shown, whatever its bytes.

    A file that took the number of a closed stream would be written to by whoever means the stream.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        unicode = sys.stdout.encoding.lower().replace("-", "") == "utf8"
        sys.stdout.reconfigure(errors="surrogateescape" if unicode else "backslashreplace")


def _dispatch(words: list[str], terminal: Terminal) -> int:
    if not words or words[0] in ("-h", "--help"):
        words = ["help", *words[1:]]
    if words[0] == "--version":
        words = ["version", *words[1:]]
    name, *arguments = words
    if name.startswith("-"):
        raise UsageError(
            f"the flag `{name}` stands before the command",
            hint=f"flags follow the command: `modelbuild build {name} //...`",
        )
    if name not in COMMANDS and name not in HIDDEN_COMMANDS:
        from modelbuild.loading.suggestion import did_you_mean  # noqa: PLC0415

        raise UsageError(
            f"there is no command `{name}`",
            hint=did_you_mean(name, COMMANDS) or "`modelbuild help` lists the commands",
        )
    from modelbuild.cli.command_line import CommandLine, add_general_flags  # noqa: PLC0415

    module = command_module(name)
    parser = CommandLine(name, module.SUMMARY, module.USAGE)
    module.configure(parser)
    add_general_flags(parser)
    before_rest = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "-h" in before_rest or "--help" in before_rest:
        terminal.write(parser.format_help())
        return ExitCode.OK
    return int(module.run(parser.read(arguments), terminal))


def _color(words: Sequence[str]) -> ColorMode:
    """--color has to be known before the parser, whose errors are coloured too."""
    mode: ColorMode = "auto"
    for at, word in enumerate(words):
        if word == "--":
            break
        value = words[at + 1] if word == "--color" and at + 1 < len(words) else word.removeprefix("--color=")
        if value in ("always", "never", "auto") and word.startswith("--color"):
            mode = value  # type: ignore[assignment]
    return mode


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM and a closed terminal end a build as Ctrl-C does."""
    raise KeyboardInterrupt


def _is_main_thread() -> bool:
    import threading  # noqa: PLC0415

    return threading.current_thread() is threading.main_thread()


def _report_bug(words: Sequence[str], terminal: Terminal) -> int:
    import tempfile  # noqa: PLC0415
    import traceback  # noqa: PLC0415

    text = traceback.format_exc()
    last = text.strip().rpartition("\n")[2]
    if "-v" in words or "--verbose" in words:
        terminal.say(text)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="modelbuild-bug-", suffix=".txt", delete=False, encoding="utf-8"
        ) as stream:
            stream.write(f"modelbuild {' '.join(words)}\n{text}")
        where = f"the traceback is in {stream.name}"
    except OSError:
        where = "`--verbose` shows the traceback"
    error = f"error: this is a bug in modelbuild: {last}\n   = {where}"
    terminal.say(paint_error(terminal, error))
    return EXIT_BUG

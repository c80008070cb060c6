"""The process that evaluates Starlark.

A native operation on a giant value can be neither cancelled nor refused from inside, and running out of
memory ends the process it happens in. So BUILD files are evaluated in a forked child with limits of its own
on memory and CPU time. The child answers in order; while it evaluates one package, the parent checks the
attributes of the one before.
"""

from __future__ import annotations

import faulthandler
import gc
import marshal
import mmap
import os
import resource
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self

from modelbuild.errors import LoadError, Location
from modelbuild.loading.select import Select
from modelbuild.loading.source_file import place_in_call

_LENGTH = struct.Struct("<Q")
_NAME_BYTES = 4096
_OUT_OF_MEMORY = (
    "MemoryError", "out of memory", "Cannot allocate memory", "must not exceed u32::MAX",
    "PyObject pointer is null",
)  # fmt: skip
"""What Python and Rust say of it. A native allocation that fails aborts, and says nothing."""
_SUSPECT = r"\*\s*\d{7,}|\b\d{7,}\s*\*|\brange\(\s*\d{7,}"


@dataclass(frozen=True, slots=True)
class Limits:
    """memory_bytes: what evaluation may allocate. cpu_seconds: what one file may take.

    values, answer_bytes: what one BUILD file may declare. To check a value costs the parent up to a kilobyte,
    and nothing else limits its memory.
    """

    memory_bytes: int = 1 << 30
    cpu_seconds: float = 60.0
    values: int = 4_000_000
    answer_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call in a BUILD file: see starlark.RuleCall. frames: (path, line, function), outermost first."""

    rule: str
    positional: list[Any]
    attributes: dict[str, Any]
    frames: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True, slots=True)
class EvaluatedPackage:
    """One evaluated BUILD file, or the error in it. Paths are absolute."""

    repository: str
    package: str
    calls: tuple[RecordedCall, ...] = ()
    messages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    rule_files: tuple[tuple[str, tuple[str, ...]], ...] = ()
    error: LoadError | None = None


class Evaluator:
    """A child that evaluates BUILD files; a context manager.

    rules: names of the built-in rules. roots: repository name -> absolute directory. skip: absolute
    directories that globs leave out.
    """

    def __init__(
        self,
        rules: Sequence[str],
        root_of: Callable[[str], str],
        skip: frozenset[str] = frozenset(),
        limits: Limits | None = None,
    ) -> None:
        self._rules = rules
        self._root_of = root_of
        self._skip = skip
        self._limits = limits or Limits()
        self._child = 0
        self._to_child = -1
        self._from_child = -1
        # Outlive the child: the file it evaluates, and what it failed of.
        self._current = mmap.mmap(-1, _NAME_BYTES)
        self._failure = mmap.mmap(-1, _NAME_BYTES)

    def __enter__(self) -> Self:
        """Start the child."""
        read_request, self._to_child = os.pipe()
        self._from_child, write_answer = os.pipe()
        with warnings.catch_warnings():
            # The child touches no lock that another thread could hold: it evaluates, writes and _exits.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.close(self._to_child)
            os.close(self._from_child)
            self._serve(read_request, write_answer)
        self._child = child
        os.close(read_request)
        os.close(write_answer)
        return self

    def __exit__(self, *_: object) -> None:
        """End the child."""
        self._close()
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._child = 0

    def evaluate(self, packages: Sequence[tuple[str, str]]) -> Iterator[EvaluatedPackage]:
        """Evaluate the BUILD files of (repository, package) pairs, in order.

        Raises LoadError when a file exceeds a limit: nothing can be evaluated after that.
        """
        if not packages:
            return
        self._send(marshal.dumps([tuple(pair) for pair in packages]))
        for repository, package in packages:
            answer = _receive(self._from_child)
            if answer is None:
                raise self._death()
            yield _decode(repository, package, marshal.loads(answer))  # noqa: S302  # our own child's

    def _send(self, data: bytes) -> None:
        try:
            _write_all(self._to_child, data)
        except BrokenPipeError:
            raise self._death() from None

    def _close(self) -> None:
        for descriptor in (self._to_child, self._from_child):
            if descriptor >= 0:
                os.close(descriptor)
        self._to_child = self._from_child = -1

    def _death(self) -> LoadError:
        """What ended the child, as an error at the file it was evaluating."""
        self._close()
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        file, failure = _get(self._current), _get(self._failure)
        location = self._suspect(file) if file else None
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number in {signal.SIGXCPU, signal.SIGKILL}:
            return LoadError(
                f"evaluation takes more than {self._limits.cpu_seconds:g} s",
                location=location,
                hint="is there a loop that does not end?",
            )
        if number == signal.SIGSEGV:
            return LoadError("an expression is nested too deeply", location=location)
        if failure and not any(sign in failure for sign in _OUT_OF_MEMORY):
            raise RuntimeError(f"evaluating `{file}` failed: {failure}")
        return LoadError(
            f"evaluation needs more than {self._limits.memory_bytes >> 20} MiB of memory",
            location=location,
            hint="is there a repetition such as `[0] * 1000000000`?",
        )

    def _suspect(self, file: str) -> Location:
        """The first line that repeats something very often, in a file that exceeded a limit."""
        repository, separator, path = file.removeprefix("@").partition("//")
        root = self._root_of(repository if separator else "")
        return place_in_call(root, Location(path if separator else file, 0), _SUSPECT, whole_file=True)

    def _serve(self, requests: int, answers: int) -> NoReturn:
        """The child's whole life; ends when the parent closes its end."""
        code = 0
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 2)
            # Both read by Rust's panic handler, which would spend seconds on a backtrace nobody sees.
            os.unsetenv("RUST_BACKTRACE")
            os.unsetenv("RUST_LIB_BACKTRACE")
            gc.disable()  # nothing here is collected before the process ends
            faulthandler.disable()  # its traceback of a child is nobody's concern
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _limit_memory(self._limits.memory_bytes)
            self._answer(requests, answers)
        except BaseException as error:  # noqa: BLE001 - a Rust panic is a BaseException; the parent reports it
            code = 1
            _put(self._failure, f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)

    def _answer(self, requests: int, answers: int) -> None:
        from modelbuild.loading.build_file import BuildFileEvaluator  # noqa: PLC0415  # the child's alone

        evaluator = BuildFileEvaluator(
            self._rules, self._root_of, self._skip, self._announce, self._limits.cpu_seconds
        )
        while (request := _receive(requests)) is not None:
            for repository, package in marshal.loads(request):  # noqa: S302  # our own parent's
                try:
                    found = evaluator.evaluate(repository, package)
                    calls = [(c.rule, c.positional, c.attributes, c.frames) for c in found.calls]
                    answer: Any = (
                        None,
                        calls,
                        found.messages,
                        sorted(found.files),
                        sorted(found.directories),
                        [(file, sorted(names)) for file, names in found.rule_files.items()],
                    )
                except LoadError as error:
                    answer = _refusal(error)
                _write_all(answers, self._bounded(answer))

    def _bounded(self, answer: Any) -> bytes:
        """The answer as it is sent, or an error when that is more than the parent should have to read."""
        data = _dumps(answer)
        if answer[0] is not None:
            return data
        if len(data) > self._limits.answer_bytes:
            what = f"{self._limits.answer_bytes >> 20} MiB of text and numbers"
        elif len(data) > self._limits.values and _count(answer, self._limits.values) > self._limits.values:
            what = f"{self._limits.values:,} values"  # Each takes a byte or more.
        else:
            return data
        error = LoadError(
            f"a BUILD file may declare {what}, and this one declares more",
            location=Location(_get(self._current)),
            hint="is there a repetition that is longer than meant? What is data belongs in a file of its own",
        )
        if answer[1]:
            rule, _, _, frames = max(answer[1], key=lambda call: _count(call[1:3], self._limits.values))
            error.location = Location(*frames[0][:2])
            error.notes = (f"this call of `{rule.rpartition('%')[2]}` has the most of them",)
        return _dumps(_refusal(error))

    def _announce(self, file: str) -> None:
        _put(self._current, file)
        used = resource.getrusage(resource.RUSAGE_SELF)
        # Natives that never ask whether they are cancelled are ended by the kernel, a little later.
        allowed = int(used.ru_utime + used.ru_stime + self._limits.cpu_seconds) + 1
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        if hard == resource.RLIM_INFINITY or allowed < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (allowed, hard))


def _put(memory: mmap.mmap, text: str) -> None:
    memory[:] = text.encode("utf-8", "replace")[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")


def _get(memory: mmap.mmap) -> str:
    return bytes(memory[:]).rstrip(b"\0").decode("utf-8", "replace")


def _limit_memory(allowed: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm", "rb") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + allowed
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _refusal(error: LoadError) -> tuple[Any, ...]:
    """An error as an answer."""
    place = error.location and (error.location.path, error.location.line, error.location.column)
    return ((error.message, place, error.notes, error.hint),)


def _count(value: Any, enough: int) -> int:
    """How many values there are in plain data, itself included; stops when there are more than `enough`."""
    count, waiting = 1, [value]
    while waiting and count <= enough:
        item = waiting.pop()
        if isinstance(item, Select):
            item = [branch for _, branch in item.branches]
        elif isinstance(item, dict):
            item = list(item.values())
        count += len(item)
        waiting += [each for each in item if isinstance(each, (list, tuple, dict, Select))]
    return count


def _dumps(answer: Any) -> bytes:
    """Marshal, every Select as a tuple, and whether there is one; Starlark's own tuples cross as lists."""
    try:
        return marshal.dumps((False, answer))
    except ValueError:  # an object that marshal does not know: a Select
        return marshal.dumps((True, _encode(answer)))


def _encode(value: Any) -> Any:
    if isinstance(value, Select):
        return ("select", [(key, _encode(branch)) for key, branch in value.branches], value.no_match_error)
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, tuple):
        return tuple(_encode(item) for item in value)
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    return value


def _decode_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return Select(tuple((key, _decode_value(branch)) for key, branch in value[1]), value[2])
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, (tuple, list, dict)):
                value[index] = _decode_value(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (tuple, list, dict)):
                value[key] = _decode_value(item)
    return value


def _decode(repository: str, package: str, message: tuple[bool, Any]) -> EvaluatedPackage:
    has_selects, answer = message
    if answer[0] is not None:
        text, place, notes, hint = answer[0]
        location = Location(*place) if place else None
        error = LoadError(text, location=location, notes=tuple(notes), hint=hint)
        return EvaluatedPackage(repository, package, error=error)
    _, calls, messages, files, directories, rule_files = answer
    return EvaluatedPackage(
        repository,
        package,
        tuple(
            RecordedCall(rule, positional, _decode_value(attributes) if has_selects else attributes, frames)
            for rule, positional, attributes, frames in calls
        ),
        tuple(messages),
        tuple(files),
        tuple(directories),
        tuple((file, tuple(names)) for file, names in rule_files),
    )


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(_LENGTH.pack(len(data)) + data)
    while view:
        view = view[os.write(descriptor, view) :]


def _receive(descriptor: int) -> bytes | None:
    """One message, or None when the other side is gone."""
    head = _read_exactly(descriptor, _LENGTH.size)
    return None if head is None else _read_exactly(descriptor, _LENGTH.unpack(head)[0])


def _read_exactly(descriptor: int, count: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
        part = os.read(descriptor, min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)

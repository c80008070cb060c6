"""genrule: a shell command that makes files, as in Bazel."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from modelbuild.analysis.context import Context
from modelbuild.artifact import Artifact
from modelbuild.attribute import Files
from modelbuild.label import Label, parse_label
from modelbuild.provider import DefaultInfo, Provider
from modelbuild.rules.native.native_rule import NativeRule

OUTPUT_ROOT = "modelbuild-out"
_VARIABLE = re.compile(r"\$(\$|\(([^()]*)\)|[@<]|)")
_SAFE = re.compile(r"[A-Za-z0-9@%_+:,./-]+")
_LOCATIONS = frozenset(f"{word}{s}" for word in ("location", "execpath", "rootpath") for s in ("", "s"))


class Genrule(NativeRule):
    """Runs a bash command that makes files; means the same as in Bazel.

    In `cmd`, `$<` is the one source, `$(SRCS)` all of them, `$@` the one output, `$(OUTS)` all of them,
    `$(@D)` and `$(RULEDIR)` the output directory, `$(location //pkg:target)` (`locations`, `execpath`,
    `execpaths`) the path of a source, tool or output, and `$$` a dollar sign.

        genrule(name = "upper", srcs = ["in.txt"], outs = ["out.txt"], cmd = "tr a-z A-Z < $< > $@")
    """

    exec_attributes: ClassVar[frozenset[str]] = frozenset({"tools", "exec_tools"})

    srcs: list[Files] = []
    """Files and targets that the command reads."""
    outs: list[str]
    """Files it makes, relative to the package; each is a label too."""
    cmd: str = ""
    """The command, run by bash with `set -e -o pipefail` in a directory that holds its inputs only."""
    cmd_bash: str = ""
    """Taken instead of `cmd` when given, as in Bazel."""
    cmd_bat: str = ""
    """Accepted as in Bazel; for Windows."""
    cmd_ps: str = ""
    """Accepted as in Bazel; for Windows."""
    tools: list[Files] = []
    """Programs that the command runs; like `srcs`, but not in `$(SRCS)`."""
    executable: bool = False
    """Whether the output is a program; allowed with exactly one output."""
    exec_tools: list[Files] = []
    """More `tools`, as in Bazel."""
    message: str = ""
    """What is shown while it runs."""
    local: bool = False
    """Accepted as in Bazel; every action runs locally."""
    stamp: Literal[False, 0] = False
    """Accepted as in Bazel; nothing is ever stamped."""
    heuristic_label_expansion: Literal[False, 0] = False
    """Accepted as in Bazel; only `$(location)` and its like are expanded."""
    output_to_bindir: bool = False
    """Accepted as in Bazel; there is one directory of outputs."""
    output_licenses: list[str] = []
    """Accepted as in Bazel; means nothing."""
    toolchains: list[str] = []
    """Accepted when it is empty: nothing here gives Make variables."""

    @classmethod
    def declared_outputs(cls, attributes: Mapping[str, Any]) -> tuple[str, ...]:
        """The output files, which are labels of the package."""
        outs = attributes.get("outs", ())
        return tuple(outs) if isinstance(outs, list | tuple) else ()

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        """One action."""
        if not self.outs:
            ctx.fail("`outs` is empty", hint="a genrule makes at least one file")
        if self.executable and len(self.outs) != 1:
            ctx.fail("`executable` needs exactly one output")
        if self.toolchains:
            ctx.fail(
                "`toolchains` gives Make variables in Bazel, and no target here has any",
                hint="write what the variables stand for into `cmd`, and name programs in `tools`",
            )
        if not self.cmd and not self.cmd_bash:
            ctx.fail("there is no `cmd`")
        names = [name.removeprefix(f"//{ctx.label.package}:").removeprefix(":") for name in self.outs]
        outputs = [ctx.declare_output(name) for name in names]
        by_label: dict[Label, set[str]] = {}
        sources: dict[str, Artifact] = {}
        for dependency in (*self.srcs, *self.tools, *self.exec_tools):
            sources |= {str(artifact): artifact for artifact in dependency.artifacts}
            for label in {dependency.label, dependency.actual_label}:
                by_label.setdefault(label, set()).update(str(artifact) for artifact in dependency.artifacts)
        for name, output in zip(names, outputs, strict=True):
            by_label[ctx.label.sibling(name)] = {str(output)}
        source_paths = list(dict.fromkeys(str(a) for s in self.srcs for a in s.artifacts))
        expand = _Expansion(ctx, source_paths, [str(output) for output in outputs], by_label)
        ctx.run_shell(
            command=expand.command(self.cmd_bash or self.cmd),
            inputs=sources,
            outputs={str(output): output for output in outputs},
            progress=self.message,
            executable=self.executable,
        )
        return [DefaultInfo(tuple(outputs))]


class _Expansion:
    """The `$` variables of one command."""

    def __init__(
        self, ctx: Context, sources: list[str], outputs: list[str], by_label: Mapping[Label, set[str]]
    ) -> None:
        self._ctx = ctx
        self._sources = sources
        self._outputs = outputs
        self._by_label = by_label
        self._directory = f"{OUTPUT_ROOT}/{ctx.label.package}".rstrip("/")

    def command(self, text: str) -> str:
        """`text` with every variable replaced."""
        return _VARIABLE.sub(lambda match: self._variable(match.group(1), match.group(2)), text)

    def _variable(self, token: str, name: str | None) -> str:
        match name if name is not None else token:
            case "$":
                return "$"
            case "<":
                return self._one(self._sources, "$<", "source")
            case "@":
                return self._one(self._outputs, "$@", "output")
            case "SRCS":
                return " ".join(self._sources)
            case "OUTS":
                return " ".join(self._outputs)
            case "RULEDIR":
                return self._directory
            case "@D":
                return self._outputs[0].rpartition("/")[0] if len(self._outputs) == 1 else self._directory
            case "GENDIR" | "BINDIR":
                return OUTPUT_ROOT
        if name is None:
            self._ctx.fail("a `$` in `cmd` starts no variable", hint="write `$$` for a dollar sign")
        function, _, argument = name.partition(" ")
        if function in _LOCATIONS:
            paths = self._paths(argument)
            if function.startswith("rootpath"):
                paths = [path.removeprefix(f"{OUTPUT_ROOT}/") for path in paths]
            if not function.endswith("s"):
                self._one(paths, f"$({name})", "file")
            return " ".join(map(_escaped, paths))
        return self._ctx.fail(f"`$({name})` is no variable", hint="write `$$(...)` for a shell substitution")

    def _paths(self, text: str) -> list[str]:
        label = self._ctx.label
        wanted = parse_label(text.strip(), label.package, label.repository)
        if wanted not in self._by_label:
            self._ctx.fail(
                f"`$(location {text})` names nothing that the rule reads or makes",
                hint=f"add `{text}` to `srcs` or `tools`",
            )
        return sorted(self._by_label[wanted], key=_place_in_bazel)

    def _one(self, paths: list[str], variable: str, noun: str) -> str:
        if len(paths) != 1:
            self._ctx.fail(f"`{variable}` needs exactly one {noun}, and there are {len(paths)}")
        return paths[0]


def _escaped(path: str) -> str:
    """As Bazel writes the path of a label for bash, and only there: `$<` and its like stand as they are."""
    return path if _SAFE.fullmatch(path) else "'" + path.replace("'", "'\\''") + "'"


def _place_in_bazel(path: str) -> str:
    """Sorts the files of a `$(locations)` as Bazel does, which calls its directory of outputs otherwise."""
    return re.sub(f"^{OUTPUT_ROOT}/", "bazel-out/", path)

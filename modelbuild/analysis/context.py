"""Context: all that a rule can do while it is analysed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeVar

from modelbuild.actions.action import Action, Determinism, Resources
from modelbuild.actions.key import canonical
from modelbuild.artifact import Artifact
from modelbuild.attribute import Dependency, ResolvedTarget
from modelbuild.configuration.toolchain_resolution import Resolution, resolve
from modelbuild.errors import AnalysisError
from modelbuild.label import Label
from modelbuild.platform import PlatformInfo
from modelbuild.runner import Runner
from modelbuild.tool import PythonTool, ShellTool, Tool, TreeTool, WriteTool
from modelbuild.toolchain import DeclaredToolchainInfo, ToolchainTypeInfo

T = TypeVar("T")


def _no_variant(label: Label, platform: Label) -> ResolvedTarget | str:
    raise AnalysisError(f"`{label}` is in no attribute that is split for `{platform}`")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What configuration found out for one target.

    platform: what it is built for; None when it does not depend on one. host: the machine that builds.
    toolchains: those that are registered. variant: (label, platform) -> the target as it is for that
    platform, or why there is none. prefix: of its outputs.
    """

    platform: PlatformInfo | None = None
    host: PlatformInfo | None = None
    toolchain_types: Mapping[Label, ToolchainTypeInfo] = field(default_factory=dict)
    toolchains: tuple[DeclaredToolchainInfo, ...] = ()
    variant: Callable[[Label, Label], ResolvedTarget | str] = _no_variant
    prefix: str = ""


_NOWHERE = Surroundings()
_SHORT = 63
"""Characters of a path that is not too long, whatever their encoding takes."""
_NAME_BYTES, _PATH_BYTES = 255, 3500
"""NAME_MAX of the file systems that matter; PATH_MAX less what leads to the directory of an action."""


def output_path(label: Label, path: str, prefix: str = "") -> str:
    """Where an output of target `label` lies below modelbuild-out. path: relative to its package."""
    inside = f"{label.package}/{path}" if label.package else path
    return f"{prefix}external/{label.repository}/{inside}" if label.repository else f"{prefix}{inside}"


def _is_too_long(path: str) -> bool:
    encoded = path.encode()
    return len(encoded) > _PATH_BYTES or any(len(name) > _NAME_BYTES for name in encoded.split(b"/"))


class Context:
    """Declares outputs and actions of one target. Opens no file and starts no process."""

    def __init__(
        self,
        label: Label,
        *,
        determinism: Determinism = "bitwise",
        declared_at: str = "",
        surroundings: Surroundings = _NOWHERE,
    ) -> None:
        self.label = label
        self._surroundings = surroundings
        self._resolutions: dict[tuple[Label, Label], Resolution] = {}
        self._takes_first: set[tuple[Label, Label]] = set()
        self._choices: list[str] = []
        self._declared_at = declared_at
        self.actions: list[Action] = []
        self.listings: list[str] = []
        self._determinism = determinism
        self._declared: dict[str, Artifact] = {}

    @property
    def platform(self) -> PlatformInfo:
        """The platform the target is built for. The rule says `needs_platform = True`."""
        if self._surroundings.platform is None:
            raise AnalysisError(f"the rule of `{self.label}` reads the platform without `needs_platform`")
        return self._surroundings.platform

    def toolchains(self, toolchain_type: Label, platform: PlatformInfo | None = None) -> Resolution:
        """The toolchains of a type that fit a platform, by default the target's, and those that do not.

        toolchain_type: one of the rule's `toolchain_types`.
        """
        target = platform or self.platform
        if toolchain_type not in self._surroundings.toolchain_types or self._surroundings.host is None:
            raise AnalysisError(f"the rule of `{self.label}` has no toolchain type `{toolchain_type}`")
        key = (toolchain_type, target.label)
        if key not in self._resolutions:
            self._resolutions[key] = resolve(
                toolchain_type, target, self._surroundings.host, self._surroundings.toolchains
            )
        return self._resolutions[key]

    def toolchain(self, toolchain_type: Label) -> DeclaredToolchainInfo:
        """The toolchain to use: the first that fits. Raises AnalysisError when none does."""
        resolution = self.toolchains(toolchain_type)
        if not resolution.accepted:
            raise self.no_toolchain(resolution)
        self._takes_first.add((toolchain_type, self.platform.label))
        return resolution.accepted[0]

    def record_choice(self, text: str) -> None:
        """Say how a choice among `toolchains` was made, for `--toolchain-resolution-debug`."""
        self._choices.append(text)

    @property
    def resolutions(self) -> tuple[str, ...]:
        """How toolchains were chosen so far, for `--toolchain-resolution-debug`."""
        found = (
            "\n".join(resolution.lines(takes_first=key in self._takes_first))
            for key, resolution in self._resolutions.items()
        )
        return (*found, *self._choices)

    def no_toolchain(self, resolution: Resolution) -> AnalysisError:
        """The error that none fits, with the reason for each."""
        known = self._surroundings.toolchain_types[resolution.toolchain_type]
        return resolution.error(self.label, known.no_match_error)

    def under(self, dependency: Dependency, platform: PlatformInfo) -> ResolvedTarget | str:
        """A dependency of a split attribute as it is built for `platform`; a text says why it cannot be."""
        return self._surroundings.variant(dependency.label, platform.label)

    @property
    def declared(self) -> tuple[Artifact, ...]:
        """The outputs declared so far."""
        return tuple(self._declared.values())

    def declare_file(self, name: str) -> Artifact:
        """An output file, `modelbuild-out/<package>/<target>/<name>`."""
        return self._declare(f"{self.label.name}/{name}", "file")

    def declare_tree(self, name: str) -> Artifact:
        """An output directory, `modelbuild-out/<package>/<target>/<name>`."""
        return self._declare(f"{self.label.name}/{name}", "tree")

    def declare_output(self, path: str) -> Artifact:
        """An output file at `modelbuild-out/<package>/<path>`, as genrule's `outs` name it."""
        return self._declare(path, "file")

    def run(
        self,
        *,
        tool: PythonTool,
        mnemonic: str,
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        params: Mapping[str, Any],
        threads: int = 1,
        resources: Resources | None = None,
        determinism: Determinism | None = None,
        resumable: bool = False,
        progress: str = "",
        depends_on: Sequence[str] = (),
        runner: Runner | None = None,
        volatile: Sequence[str] = (),
    ) -> None:
        """Declare an action that calls `tool`.

        inputs, outputs: logical name -> artifact; the tool finds them in `request.inputs[name]` and
        `request.outputs[name]`. params: plain JSON data. depends_on: the constraint values that the
        result depends on; nothing else of the platform reaches the key. runner: the device that it runs on,
        if not this machine. volatile: names of outputs that differ from run to run, such as times.
        """
        self._add(
            tool,
            params,
            {f"in/{name}": artifact for name, artifact in inputs.items()},
            {f"out/{name}": artifact for name, artifact in outputs.items()},
            mnemonic,
            platform=tuple(sorted(depends_on)),
            threads=threads,
            resources=resources or Resources(cpu=threads),
            determinism=determinism or self._determinism,
            resumable=resumable,
            runner=None if runner is None or runner.kind == "local" else runner,
            volatile=tuple(f"out/{name}" for name in volatile),
            progress=progress,
        )

    def run_shell(
        self,
        *,
        command: str,
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        mnemonic: str = "Genrule",
        progress: str = "",
        executable: bool = False,
    ) -> None:
        """Declare an action that runs `command` in bash. Logical names are the paths the command uses.

        executable: the outputs are programs, whatever mode the command leaves them in.
        """
        if "\0" in command:
            self.fail("the command holds a NUL character, which no program can be given")
        params = {"command": command, "executable": executable}
        self._add(ShellTool(), params, inputs, outputs, mnemonic, progress=progress)

    def write(self, artifact: Artifact, content: str, *, executable: bool = False) -> None:
        """Declare an action that writes `content` (UTF-8) to `artifact`."""
        params = {"content": content, "executable": executable}
        self._add(WriteTool(), params, {}, {"out": artifact}, "Write")

    def symlink_tree(self, artifact: Artifact, files: Mapping[str, Artifact]) -> None:
        """Declare an action that makes tree `artifact` of `files`: path in the tree -> file or tree."""
        self._add(TreeTool(), {}, files, {"out": artifact}, "SymlinkTree")

    def attempt(self, declare: Callable[[], T]) -> T:
        """What `declare` returns; if it raises AnalysisError, nothing that it declared has been."""
        actions, declared = len(self.actions), dict(self._declared)
        try:
            return declare()
        except AnalysisError:
            del self.actions[actions:]
            self._declared = declared
            raise

    def record_listing(self, directory: str) -> None:
        """Say that the rule read which files lie in a directory of the machine (absolute path).

        An exception for rules around what is installed, as `python_stdlib`: while the names in the directory
        stay the same, a null build need not ask the rule again.
        """
        self.listings.append(directory)

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        """Refuse the target; the BUILD line is added to the error."""
        raise AnalysisError(f"`{self.label}`: {message}", hint=hint)

    def _check_plain(self, mnemonic: str, params: Mapping[str, Any]) -> None:
        try:
            canonical(params)
        except (TypeError, ValueError) as error:
            raise AnalysisError(
                f"`{self.label}`: the parameters of action {mnemonic} are not plain JSON data",
                notes=(str(error),),
            ) from None

    def _declare(self, path: str, kind: str) -> Artifact:
        full = output_path(self.label, path, self._surroundings.prefix)
        if len(full) > _SHORT and _is_too_long(full):
            raise AnalysisError(f"`{self.label}`: the name of output `{path[:40]}...` is too long for a file")
        if full in self._declared:
            raise AnalysisError(f"`{self.label}` declares output `{path}` twice")
        artifact = Artifact(full, "tree" if kind == "tree" else "file")
        self._declared[full] = artifact
        return artifact

    def _add(
        self,
        tool: Tool,
        params: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        mnemonic: str,
        **fields: Any,
    ) -> None:
        if not isinstance(tool, ShellTool | WriteTool):  # whose parameters are ours, and plain
            self._check_plain(mnemonic, params)
        if not outputs:
            raise AnalysisError(f"`{self.label}`: action {mnemonic} declares no output")
        action = Action(tool, params, dict(inputs), dict(outputs))
        self.actions.append(
            replace(action, owner=self.label, declared_at=self._declared_at, mnemonic=mnemonic, **fields)
        )

"""Tools with locks, through the real command line: contradicting versions in one build, edits, failures, gc."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.command_line import CommandLine
from tests.wheels import make_wheel

RULE = '''
from pathlib import Path

from modelbuild.api import Context, DefaultInfo, File, Lock, Provider, PythonTool, Rule, RunInfo

HERE = Path(__file__).parent


class Report(Rule):
    """Writes what the tool's environment holds."""

    lock: str
    reads: str = ""
    program: str = ""
    machine: str = ""

    def analyze(self, ctx: Context) -> list[Provider]:
        out = ctx.declare_file("report.txt")
        packages = (("other", Lock(HERE / self.reads, "aarch64-manylinux_2_28")),) if self.reads else ()
        programs = (self.program,) if self.program else ()
        lock = Lock(HERE / self.lock, self.machine)
        tool = PythonTool(HERE / "tool.py", lock=lock, packages=packages, programs=programs)
        if self.machine:
            ctx.write(out, "for " + self.machine)
        else:
            ctx.run(tool=tool, params={}, inputs={}, outputs={"report": out}, mnemonic="Report")
        return [DefaultInfo((out,)), RunInfo(tool, {}, {})]
'''

TOOL = """
import sys
import tiny


def main(request):
    found = []
    for name in ("torch", "pydantic", "starlark"):
        try:
            __import__(name)
        except ModuleNotFoundError:
            continue
        found.append(name)
    text = f"tiny {tiny.VERSION}; of the host: {found}"
    for name, path in request.packages.items():
        text += f"; {name}: {(path / 'native' / 'lib.so').read_text()}"
    for name, path in request.programs.items():
        text += f"; {name}: {path}"
    if "report" in request.outputs:
        request.outputs["report"].write_text(text)
    else:
        print(text, *request.arguments)
"""

BUILD = """
load("//toolchains/tiny:rule.py", "report")
report(name = "one", lock = "one.lock")
report(name = "two", lock = "two.lock")
genrule(name = "both", srcs = [":one", ":two"], outs = ["both.txt"], cmd = "cat $(SRCS) > $@")
"""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    root = tmp_path / "workspace"
    root.mkdir()
    workspace = CommandLine(root)
    workspace.put("modelbuild.toml", '[build]\nfind_links = "wheels"\noffline = true\n')
    workspace.put("toolchains/tiny/BUILD.models", "")
    workspace.put("toolchains/tiny/rule.py", RULE)
    workspace.put("toolchains/tiny/tool.py", TOOL)
    workspace.put("toolchains/tiny/one.lock", "tiny==1.0\n")
    workspace.put("toolchains/tiny/two.lock", "tiny==2.0\n")
    workspace.put("BUILD.models", BUILD)
    for version in ("1.0", "2.0"):
        make_wheel(root / "wheels", "tiny", version)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    return workspace


def environments(workspace: CommandLine) -> list[str]:
    return sorted(path.parent.name for path in (workspace.root / "cache").glob("environments/*/made.json"))


def test_contradicting_dependencies_live_in_one_build(workspace: CommandLine) -> None:
    result = workspace.build()
    assert workspace.out("both.txt") == "tiny 1.0; of the host: []tiny 2.0; of the host: []"
    assert len(environments(workspace)) == 2
    said = [event["text"] for event in result.events if event["event"] == "message"]
    assert sorted(said) == [
        "making environment `tiny/one.lock`: 1 package",
        "making environment `tiny/two.lock`: 1 package",
    ]
    again = workspace.build()
    assert again.executed() == set()
    assert not [event for event in again.events if event["event"] == "message"]


def test_an_edited_lock_reruns_what_uses_it_and_says_why(workspace: CommandLine) -> None:
    workspace.build()
    workspace.put("toolchains/tiny/one.lock", "# only a comment\ntiny==1.0\n")
    assert workspace.build().executed() == set()
    make_wheel(workspace.root / "wheels", "tiny", "3.0")
    workspace.put("toolchains/tiny/one.lock", "tiny==3.0\n")
    result = workspace.build()
    assert result.executed() == {"//:one", "//:both"}
    (reason,) = [
        event["reason"]
        for event in result.events
        if event["event"] == "action_started" and event["label"] == "//:one"
    ]
    assert reason == "tool: tiny 1.0 -> 3.0; inputs, command, platform unchanged"
    workspace.put("toolchains/tiny/one.lock", "tiny==2.0\n")
    assert workspace.build().executed() == {"//:both"}, "it is what the other tool has made already"
    assert len(environments(workspace)) == 3


def test_no_environment_is_made_for_what_a_cache_holds(workspace: CommandLine) -> None:
    workspace.build()
    for name in ("cache/environments", "modelbuild-out"):
        os.rename(workspace.root / name, workspace.root.parent / f"old-{os.path.basename(name)}")
    (workspace.root / "cache" / "snapshots").rename(workspace.root.parent / "snapshots")
    result = workspace.build()
    assert result.executed() == set()
    assert environments(workspace) == []


def test_a_package_that_cannot_be_had_fails_one_action(workspace: CommandLine) -> None:
    workspace.put("toolchains/tiny/one.lock", "\ntiny==7.0\n")
    result = workspace.build("--keep-going", "//...", expect=4)
    assert result.outcomes() == {"//:one": "failed", "//:two": "executed"}
    assert "`tiny==7.0` is not at hand, and this build is offline" in result.stderr
    assert "toolchains/tiny/one.lock:2" in result.stderr
    assert "hint: " in result.stderr


def test_a_program_that_is_missing_names_its_package(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'load("//toolchains/tiny:rule.py", "report")\n'
        'report(name = "one", lock = "one.lock", program = "no-such-program (apt: some-package)")\n',
    )
    result = workspace.build(expect=4)
    assert "`no-such-program`, which is not on this machine" in result.stderr
    assert "hint: apt-get install some-package" in result.stderr


def test_packages_of_another_machine_and_programs_reach_the_tool(workspace: CommandLine) -> None:
    make_wheel(
        workspace.root / "wheels",
        "native",
        "1.0",
        files={"native/lib.so": "aarch64"},
        tag="cp311-cp311-manylinux_2_28_aarch64",
    )
    workspace.put("toolchains/tiny/device.lock", "native==1.0\n")
    workspace.put(
        "BUILD.models",
        'load("//toolchains/tiny:rule.py", "report")\n'
        'report(name = "one", lock = "one.lock", reads = "device.lock", program = "cat (apt: coreutils)")\n',
    )
    workspace.build()
    text = "tiny 1.0; of the host: []; other: aarch64; cat: /usr/bin/cat"
    assert workspace.out("one/report.txt") == text
    ran = workspace.run("run", "//:one", "--", "hello")
    assert (ran.exit_code, ran.stdout) == (0, f"{text} hello\n"), ran.stderr
    workspace.put("toolchains/tiny/device.lock", "native==1.1\n")
    assert "lock of other" not in workspace.run("explain", "//:one").stdout
    assert "native 1.0 -> 1.1" in workspace.run("explain", "//:one").stdout


def test_a_tool_for_another_machine_is_not_run_on_this_one(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'load("//toolchains/tiny:rule.py", "report")\n'
        'report(name = "far", lock = "one.lock", machine = "aarch64-manylinux_2_28")\n',
    )
    result = workspace.run("run", "//:far")
    assert result.exit_code == 2, result.stderr
    assert "error: the lock of `//:far`'s tool is for another machine and cannot run here\n" in result.stderr


def test_an_import_that_the_lock_does_not_have(workspace: CommandLine) -> None:
    workspace.put("toolchains/tiny/tool.py", "import absent\n\n\ndef main(request):\n    pass\n")
    _, stderr = workspace.start("build", "//:one").communicate(timeout=60)
    assert "add what has `absent` to that lock" in stderr


def test_gc_drops_environments_and_stats_counts_them(workspace: CommandLine) -> None:
    workspace.build()
    stats = json.loads(workspace.run("cache", "stats", "--json").stdout)
    assert stats["environments"] == 2
    assert stats["environment_bytes"] > 0
    assert workspace.run("cache", "verify").exit_code == 0
    report = json.loads(workspace.run("cache", "gc", "--json").stdout)
    assert (report["environments_removed"], report["environments_kept"]) == (0, 2)
    for stamp in (workspace.root / "cache").glob("environments/*/used"):
        os.utime(stamp, (1, 1))
    report = json.loads(workspace.run("cache", "gc", "--max-age", "1d", "--json").stdout)
    assert (report["environments_removed"], report["environments_kept"]) == (2, 0)
    assert environments(workspace) == []
    workspace.put("toolchains/tiny/tool.py", TOOL + "\n")
    assert workspace.build().executed() == {"//:one", "//:two"}
    assert len(environments(workspace)) == 2


def test_no_tool_changes_its_environment(workspace: CommandLine) -> None:
    """Not even as root, to whom modes mean nothing."""
    workspace.put(
        "toolchains/tiny/tool.py",
        "import tiny\n\n\ndef main(request):\n    open(tiny.__file__, 'a').write('VERSION = 9')\n",
    )
    _, stderr = workspace.start("build", "//:one").communicate(timeout=60)
    assert "`//:one` tried to write to a file that is not its own" in stderr or "Permission denied" in stderr
    (module,) = (workspace.root / "cache").glob("environments/*/venv/lib/*/site-packages/tiny.py")
    assert module.read_text() == 'VERSION = "1.0"\n'

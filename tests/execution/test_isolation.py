"""No action writes to what is not its own: not as root, not through a link, not through the real path."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelbuild.errors import ActionFailed

OUT = "modelbuild-out/pkg/out"
FILE = {"out/result": "file"}

TRY = """
import json, sys
from modelbuild.execution.isolation import isolate
read_only, writable, paths = json.loads(sys.argv[1])
answer = isolate(read_only, writable)
errors = []
for path in paths:
    try:
        with open(path, "w") as stream:
            stream.write("changed")
        errors.append("")
    except OSError as error:
        errors.append(error.strerror)
print(json.dumps([answer.network, answer.files, errors]))
"""


def try_to_write(
    read_only: list[Path], writable: list[Path], *paths: Path, wrapper: tuple[str, ...] = ()
) -> Any:
    argument = json.dumps([[str(path) for path in each] for each in (read_only, writable, paths)])
    command = [*wrapper, sys.executable, "-c", TRY, argument]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def folders(*paths: Path) -> None:
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize(
    ("workspace", "cache"),
    [
        ("ws", "ws/cache"),
        ("ws", "cache"),
        ("cache/ws", "cache"),
        ("cache/work/key/ws", "cache"),
        ("ws", "ws"),
    ],
)
def test_wherever_workspace_and_cache_lie(tmp_path: Path, workspace: str, cache: str) -> None:
    root, store = tmp_path / workspace, tmp_path / cache
    folders(root / "pkg", store / "cas", store / "work", store / "scratch")
    network, files, errors = try_to_write(
        [root, store],
        [store / "work", store / "scratch"],
        root / "file",
        root / "pkg" / "file",
        store / "cas" / "blob",
        store / "work" / "file",
        store / "scratch" / "file",
        tmp_path / "elsewhere",
    )
    assert (network, files) == ("", "")
    assert errors == ["Read-only file system"] * 3 + [""] * 3


def test_a_cache_behind_a_link(tmp_path: Path) -> None:
    folders(tmp_path / "ws", tmp_path / "disk" / "work")
    (tmp_path / "ws" / "cache").symlink_to(tmp_path / "disk")
    cache = tmp_path / "ws" / "cache"
    *_, errors = try_to_write(
        [tmp_path / "ws", cache], [cache / "work"], cache / "x", tmp_path / "disk" / "y", cache / "work" / "z"
    )
    assert errors == ["Read-only file system", "Read-only file system", ""]


def test_what_is_mounted_inside_is_read_only_too(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    data = tmp_path / "ws" / "data"
    folders(data)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(data)], check=True)
    try:
        *_, errors = try_to_write([tmp_path / "ws"], [], data / "file")
        assert errors == ["Read-only file system"]
    finally:
        subprocess.run(["umount", str(data)], check=True)


def test_a_machine_that_permits_no_mounts_says_so(tmp_path: Path) -> None:
    folders(tmp_path / "ws")
    script = 'echo 0 > /proc/sys/user/max_mnt_namespaces && exec "$@"'
    _, files, errors = try_to_write(
        [tmp_path / "ws"], [], tmp_path / "ws" / "x", wrapper=("unshare", "-Ur", "bash", "-c", script, "_")
    )
    assert files
    assert errors == [""]


COMMANDS = {
    "link": "echo evil >> pkg/in",
    "path": "echo evil >> $(readlink pkg/in)",
    "delete": "rm -f $(readlink pkg/in); test ! -e pkg/in",
    "beside": "echo evil > $(dirname $(readlink pkg/in))/new",
    "mode": "chmod 0777 $(readlink pkg/in)",
}


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("kind", ["source", "blob"])
def test_a_command_cannot_change_its_input(bench: Any, kind: str, what: str) -> None:
    given = bench.source("pkg/in", "good\n") if kind == "source" else bench.blob("pkg/in", "good\n")
    before = os.stat(given.path)
    with pytest.raises(ActionFailed, match="tried to write to ") as caught:
        bench.shell(f"touch {OUT}; {COMMANDS[what]}", given)
    if what != "beside":
        assert "its input `pkg/in`" in caught.value.message
    assert "nothing was changed" in caught.value.notes[0]
    assert Path(given.path).read_text() == "good\n"
    assert os.stat(given.path).st_mode == before.st_mode
    assert os.listdir(os.path.dirname(given.path)) == [os.path.basename(given.path)]
    assert bench.warnings == []


@pytest.mark.parametrize("kind", ["source", "blob"])
@pytest.mark.parametrize("path", ["request.inputs['data']", "os.path.realpath(request.inputs['data'])"])
def test_a_python_tool_cannot_change_its_input(bench: Any, kind: str, path: str) -> None:
    given = bench.source("in/data", "good\n") if kind == "source" else bench.blob("in/data", "good\n")
    body = f"request.outputs['result'].touch()\nopen({path}, 'a').write('evil')"
    with pytest.raises(ActionFailed, match="tried to write to its input `in/data`"):
        bench.run(bench.prepare(bench.tool(body), (given,), FILE))
    assert Path(given.path).read_text() == "good\n"


def test_an_action_that_lives_with_the_refusal_succeeds(bench: Any) -> None:
    given = bench.source("pkg/in", "good\n")
    assert bench.shell(f"echo evil >> pkg/in || true; cat pkg/in > {OUT}", given) == "good\n"


def test_scratch_can_be_written(bench: Any) -> None:
    scratch = bench.root / "cache" / "scratch" / "key"
    body = (
        "(request.scratch / 'state').write_text('1')\nrequest.outputs['result'].touch()\nraise SystemExit(3)"
    )
    with pytest.raises(ActionFailed, match="code 3"):
        bench.run(bench.prepare(bench.tool(body), (), FILE), str(scratch))
    assert (scratch / "state").read_text() == "1"


UNPROTECTED = """
import sys
from pathlib import Path
from modelbuild.driver.build import build
from modelbuild.driver.request import BuildRequest
from modelbuild.events import ActionFinished, Message

def say(event):
    if isinstance(event, Message):
        print(event.text)
    if isinstance(event, ActionFinished):
        print(event.error)

root = Path(sys.argv[1])
sys.exit(build(BuildRequest(root, ("//...",), root / "cache"), say).exit_code)
"""


def test_without_namespaces_it_is_noticed_afterwards(tmp_path: Path) -> None:
    (tmp_path / "modelbuild.toml").write_text("")
    (tmp_path / "in.txt").write_text("good\n")
    (tmp_path / "BUILD.models").write_text(
        'genrule(name = "first", outs = ["first.txt"], cmd = "echo good > $@")\n'
        'genrule(name = "t", srcs = [":first"], outs = ["t.txt"], cmd = "cp $< $@; chmod u+w $$(readlink $<); echo evil >> $<")\n'
    )
    script = 'echo 0 > /proc/sys/user/max_mnt_namespaces && exec "$@"'
    done = subprocess.run(
        ["unshare", "-Ur", "bash", "-c", script, "_", sys.executable, "-c", UNPROTECTED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.count("actions could write to their inputs, which is noticed afterwards") == 1
    assert "wrote to its input `modelbuild-out/first.txt`" in done.stdout

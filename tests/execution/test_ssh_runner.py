"""Tools on a device that answers to ssh: a real sshd on loopback."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelbuild.errors import ActionFailed, EnvironmentFailure, Interrupted
from modelbuild.execution.device_runner import DeviceCall, DevicePackages, stage_tool
from modelbuild.execution.devices import Devices
from modelbuild.execution.host_program import find_program
from modelbuild.execution.local import LocalExecutor
from modelbuild.execution.package_source import PackageSource
from modelbuild.execution.ssh_runner import SshRunner
from modelbuild.execution.tool_environment import ToolEnvironments
from modelbuild.runner import Runner
from modelbuild.tool import Lock, PythonTool
from tests.execution.conftest import Bench
from tests.sshd import SSHD, Sshd, login_shell_exists, start_sshd
from tests.wheels import make_wheel

pytestmark = pytest.mark.skipif(
    not os.path.exists(SSHD) or find_program("ssh") is None or not login_shell_exists(),
    reason="needs `apt-get install --no-install-recommends openssh-server openssh-client`",
)
CPU = os.uname().machine


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = start_sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture
def device(bench: Bench, sshd: Sshd, tmp_path: Path) -> Iterator[Bench]:
    """A bench whose tools can run behind the server."""
    source = PackageSource((str(tmp_path / "wheels"),), offline=True)
    environments = ToolEnvironments(str(bench.root / "cache"), lambda: source, warn=bench.warnings.append)
    with LocalExecutor(str(bench.root / "cache"), bench.blobs, environments=environments) as executor:
        executor._devices = Devices(environments, executor._pool, sshd.options)
        bench.executor = executor
        yield bench
    for folder in (bench.root / "cache/environments").rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)


def prepare(
    device: Bench, sshd: Sshd, tool: PythonTool, inputs: Any = (), cpu: str = CPU, **outputs: str
) -> Any:
    kinds = {f"out/{name}": kind for name, kind in (outputs or {"result": "file"}).items()}
    prepared = device.prepare(tool, inputs, kinds)
    runner = Runner("ssh", cpu, address=sshd.address)
    return replace(prepared, action=replace(prepared.action, runner=runner))


def run(device: Bench, sshd: Sshd, body: str, inputs: Any = (), **outputs: str) -> Any:
    return device.run(prepare(device, sshd, device.tool(body), inputs, **outputs))


def left_behind(sshd: Sshd) -> list[str]:
    return sorted(path.name for path in (sshd.root / "home/.cache/modelbuild/runs").iterdir())


def test_a_tool_runs_there_with_its_inputs_and_its_outputs_come_back(device: Bench, sshd: Sshd) -> None:
    given = device.blob("in/data", "hello")
    body = """here = os.getcwd()
request.outputs['result'].write_text(request.inputs['data'].read_text() + str('.cache/modelbuild/runs/' in here))
(request.outputs['model'] / 'a').mkdir(parents=True)
(request.outputs['model'] / 'a' / 'f').write_text('x' * 300000)"""
    result = run(device, sshd, body, (given,), result="file", model="tree")
    assert device.text(result.outputs["out/result"]) == "helloTrue"
    assert device.tree(result.outputs["out/model"]) == {"a/f": "x" * 300000}
    assert result.peak_rss_bytes > 1 << 20
    assert left_behind(sshd) == []


def test_it_says_how_far_it_is_and_what_it_says_is_kept(device: Bench, sshd: Sshd) -> None:
    tool = device.tool(
        "import beside\nfrom modelbuild.toolkit.progress import report\nreport(1, 2)\nreport(2, 2)\nprint('words')\nrequest.outputs['result'].write_text(beside.NAME)"
    )
    tool.source.with_name("beside.py").write_text("NAME = 'neighbour'\n")
    result = device.run(prepare(device, sshd, tool))
    assert device.text(result.outputs["out/result"]) == "neighbour"
    assert [(each.step, each.total) for each in device.progress][-1] == (2, 2)
    assert result.log is not None
    assert device.blobs.read(result.log) == b"words\n"


def test_packages_are_sent_once(device: Bench, sshd: Sshd, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "tiny", "1.0")
    (tmp_path / "device.lock").write_text("tiny==1.0\n")
    body = """import tiny, importlib.util
found = [name for name in ('numpy', 'torch', 'modelbuild.cli', 'pip') if importlib.util.find_spec(name)]
request.outputs['result'].write_text(tiny.VERSION + str(found))"""
    tool = replace(device.tool(body), lock=Lock(tmp_path / "device.lock", f"{CPU}-manylinux_2_28"))
    assert device.text(device.run(prepare(device, sshd, tool)).outputs["out/result"]) == "1.0[]"
    packages = sshd.root / "home/.cache/modelbuild/packages"
    (kept,) = packages.iterdir()
    before = kept.stat().st_ino
    device.run(prepare(device, sshd, tool))
    assert [path.stat().st_ino for path in packages.iterdir()] == [before]


def test_its_own_words_are_the_error(device: Bench, sshd: Sshd) -> None:
    body = "from modelbuild.toolkit.request import ToolError\nraise ToolError('the battery is empty', 'charge it')"
    with pytest.raises(ActionFailed, match="the battery is empty") as caught:
        run(device, sshd, body)
    assert caught.value.hint == "charge it"
    assert left_behind(sshd) == []


def test_what_the_login_shell_says_is_passed_over(device: Bench, sshd: Sshd) -> None:
    scripts = [sshd.root / "home" / name for name in (".bashrc", ".profile", ".zshenv")]
    for script in scripts:
        script.write_text("echo Good morning; echo 'and \\0 more' >&2\n")
    try:
        result = run(device, sshd, "request.outputs['result'].write_text('x')")
    finally:
        for script in scripts:
            script.unlink()
    assert device.text(result.outputs["out/result"]) == "x"


DAEMON = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
with open(sys.argv[1] + ".new", "w") as stream:
    stream.write(str(os.getpid()))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(300)
"""


def test_what_leaves_its_session_ends_with_the_call(device: Bench, sshd: Sshd, tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    body = f"""import subprocess
subprocess.run([sys.executable, '-c', {DAEMON!r}, {str(mark)!r}], start_new_session=True)
while not os.path.exists({str(mark)!r}):
    time.sleep(0.01)
request.outputs['result'].touch()"""
    run(device, sshd, body)
    _until(lambda: not Path(f"/proc/{mark.read_text()}").exists())


def test_a_link_that_leads_out_of_the_outputs_is_an_error(device: Bench, sshd: Sshd) -> None:
    body = "request.outputs['model'].mkdir()\nos.symlink('/etc/passwd', request.outputs['model'] / 'a')"
    with pytest.raises(ActionFailed, match=r"cannot be taken: .*out/model/a.* absolute path"):
        run(device, sshd, body, model="tree")


def test_a_device_without_room(device: Bench, sshd: Sshd) -> None:
    with pytest.raises(ActionFailed) as caught:
        run(device, sshd, "raise OSError(28, os.strerror(28))")
    assert caught.value.hint == f"the disk of the device `{sshd.address}` is full"
    runs = sshd.root / "home/.cache/modelbuild/runs"
    runs.rename(runs.with_name("elsewhere"))
    runs.write_text("a file where its directory should be")
    try:
        with pytest.raises(EnvironmentFailure, match="did not finish its call") as told:
            run(device, sshd, "pass")
        (note,) = told.value.notes
        assert "File exists" in note, "one line and no traceback"
    finally:
        runs.unlink()
        runs.with_name("elsewhere").rename(runs)


def test_a_signal_there_is_a_signal_here(device: Bench, sshd: Sshd) -> None:
    with pytest.raises(ActionFailed, match="SIGABRT"):
        run(device, sshd, "os.abort()")


def test_an_undeclared_output_is_an_error(device: Bench, sshd: Sshd) -> None:
    with pytest.raises(ActionFailed, match="extra"):
        run(device, sshd, "request.outputs['result'].touch()\nopen('extra', 'w').write('x')")


def test_it_cannot_change_what_it_was_given(device: Bench, sshd: Sshd) -> None:
    given = device.blob("in/data", "hello")
    body = "os.chmod('in/data', 0o600)\nrequest.inputs['data'].write_text('changed')\nrequest.outputs['result'].touch()"
    run(device, sshd, body, (given,))
    assert device.blobs.read(given.digest) == b"hello"


def test_a_cancelled_call_ends_there_with_all_it_started(device: Bench, sshd: Sshd, tmp_path: Path) -> None:
    mark = tmp_path / "running"
    body = f"""import subprocess
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'], start_new_session=False)
open({str(mark)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')
time.sleep(300)"""
    timer = threading.Thread(target=_cancel_when, args=(mark, device.cancel))
    timer.start()
    with pytest.raises(Interrupted):
        run(device, sshd, body)
    timer.join()
    for pid in mark.read_text().split():
        _until(lambda pid=pid: not Path(f"/proc/{pid}").exists())
    _until(lambda: left_behind(sshd) == [])


def _cancel_when(path: Path, cancel: threading.Event) -> None:
    _until(lambda: path.exists() and bool(path.read_text()))
    cancel.set()


def _until(holds: Any) -> None:
    while not holds():
        time.sleep(0.02)


def test_a_board_makes_one_call_at_a_time(device: Bench, sshd: Sshd, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    body = f"os.mkdir({mark!r})\ntime.sleep(0.2)\nos.rmdir({mark!r})\nrequest.outputs['result'].touch()"
    prepared = [prepare(device, sshd, device.tool(body)) for _ in range(3)]
    with ThreadPoolExecutor() as pool:
        assert len(list(pool.map(device.run, prepared))) == 3


def test_a_lost_connection_is_no_fault_of_the_tool(device: Bench, sshd: Sshd, tmp_path: Path) -> None:
    mark = tmp_path / "running"
    body = f"import signal\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(300)"
    with pytest.raises(EnvironmentFailure, match=r"did not finish its call|went away"):
        run(device, sshd, body)
    _until(lambda: not Path(f"/proc/{mark.read_text()}").exists())


def test_another_cpu_than_the_platform_says(device: Bench, sshd: Sshd) -> None:
    with pytest.raises(EnvironmentFailure, match=f"is {CPU}, and its runner says vax"):
        device.run(prepare(device, sshd, device.tool("pass"), cpu="vax"))


def test_another_python_than_the_wheels_are_for(device: Bench, sshd: Sshd, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "tiny", "1.0")
    (tmp_path / "device.lock").write_text("tiny==1.0\n")
    lock = Lock(tmp_path / "device.lock", f"{CPU}-manylinux_2_28", "3.99")
    with pytest.raises(EnvironmentFailure, match=r"has Python 3\.\d+, and 3.99 is needed"):
        device.run(prepare(device, sshd, replace(device.tool("pass"), lock=lock)))


def fails(runner: SshRunner, bench: Bench, sshd: Sshd) -> EnvironmentFailure:
    prepared = prepare(bench, sshd, bench.tool("pass"))
    action = replace(prepared.action, runner=Runner("ssh", CPU, address=runner.address))
    bench.executor._devices = Devices(bench.executor._environments, bench.executor._pool, runner.options)
    with pytest.raises(EnvironmentFailure) as caught:
        bench.run(replace(prepared, action=action))
    assert caught.value.hint == f"`ssh {runner.address} true` must work without asking for anything"
    return caught.value


def test_nobody_is_there(device: Bench, sshd: Sshd) -> None:
    error = fails(SshRunner("127.0.0.1:1", CPU, sshd.options), device, sshd)
    assert "`127.0.0.1:1` refuses the connection" in error.message


def test_a_host_that_ssh_does_not_know(device: Bench, sshd: Sshd, tmp_path: Path) -> None:
    options = tuple(option for option in sshd.options if "UserKnownHosts" not in option)
    error = fails(
        SshRunner(sshd.address, CPU, (*options, f"UserKnownHostsFile={tmp_path}/none")), device, sshd
    )
    assert "ssh does not know" in error.message


def test_a_key_that_is_not_let_in(device: Bench, sshd: Sshd, tmp_path: Path) -> None:
    options = tuple(option for option in sshd.options if "IdentityFile" not in option)
    error = fails(SshRunner(sshd.address, CPU, (*options, f"IdentityFile={tmp_path}/none")), device, sshd)
    assert "lets nobody in" in error.message


def test_addresses() -> None:
    for address, host, port in (
        ("pi@drone", "pi@drone", ""),
        ("pi@drone:2222", "pi@drone", "2222"),
        ("pi@[fe80::1]:22", "pi@fe80::1", "22"),
        ("[fe80::1]", "fe80::1", ""),
    ):
        assert SshRunner(address, CPU)._host_and_port() == (host, port)


def test_a_person_sees_what_it_says(
    bench: Bench, sshd: Sshd, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    tool = bench.tool("print('to', *request.arguments)\nsys.stderr.write('oh\\n')\nsys.exit(3)")
    base = str(tmp_path / "call")
    os.makedirs(f"{base}/root")
    data = {"params": {}, "inputs": {}, "outputs": {}, "arguments": ["you", "and me"]}
    Path(f"{base}/root/request.json").write_text(json.dumps(data))
    call = DeviceCall(base, "", stage_tool(tool, base), DevicePackages(f"3.{sys.version_info.minor}"))
    assert SshRunner(sshd.address, CPU, sshd.options).interact(call) == 3
    assert capfdbinary.readouterr() == (b"to you and me\n", b"oh\n")

"""Tools on an emulated device: a real aarch64 Python under qemu, in a sysroot of real Debian packages."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelbuild.errors import ActionFailed, EnvironmentFailure, Interrupted
from modelbuild.execution.host_program import find_program
from modelbuild.execution.local import LocalExecutor
from modelbuild.execution.package_source import PackageSource
from modelbuild.execution.sysroot_lock import read_sysroot_lock
from modelbuild.execution.tool_environment import ToolEnvironments
from modelbuild.rules.device.runner import SYSROOTS
from modelbuild.runner import Runner
from modelbuild.tool import Lock, PythonTool
from tests.execution.conftest import Bench
from tests.wheels import make_wheel

LOCK = SYSROOTS / "aarch64.sysroot"
QEMU = Runner("qemu-user", "aarch64", LOCK)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_program("qemu-aarch64-static") is None or find_program("apt-get") is None,
        reason="needs Debian's apt and `apt-get install --no-install-recommends qemu-user-static`",
    ),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache with the sysroot, which is fetched once for all tests."""
    root = tmp_path_factory.mktemp("devices")
    environments = ToolEnvironments(str(root))
    try:
        environments.acquire_sysroot(read_sysroot_lock(LOCK), threading.Event())
    finally:
        environments.close()
    yield root
    for folder in (root / "environments").rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)


@pytest.fixture
def device(cache: Path, bench: Bench, tmp_path: Path) -> Iterator[Bench]:
    """A bench whose tools can run on the device."""
    source = PackageSource((str(tmp_path / "wheels"),), offline=True)
    environments = ToolEnvironments(str(cache), lambda: source, warn=bench.warnings.append)
    with LocalExecutor(str(bench.root / "cache"), bench.blobs, environments=environments) as executor:
        bench.executor = executor
        yield bench


def prepare(device: Bench, tool: PythonTool, inputs: Any = (), **outputs: str) -> Any:
    kinds = {f"out/{name}": kind for name, kind in (outputs or {"result": "file"}).items()}
    prepared = device.prepare(tool, inputs, kinds)
    return replace(prepared, action=replace(prepared.action, runner=QEMU))


def run(device: Bench, body: str, inputs: Any = (), **outputs: str) -> Any:
    return device.run(prepare(device, device.tool(body), inputs, **outputs))


def test_a_tool_runs_on_the_devices_own_processor(device: Bench) -> None:
    given = device.blob("in/data", "hello")
    body = """import platform
request.outputs['result'].write_text(' '.join([request.inputs['data'].read_text(), platform.machine(), *map(str, sys.version_info[:2])]))"""
    result = run(device, body, (given,))
    assert device.text(result.outputs["out/result"]) == "hello aarch64 3 11"


def test_the_processor_is_the_devices_and_not_the_one_that_emulates(device: Bench) -> None:
    body = "request.outputs['result'].write_text(open('/proc/cpuinfo').read())"
    text = device.text(run(device, body).outputs["out/result"])
    assert "CPU part\t: 0xd03" in text


def test_a_tool_sees_its_own_packages_and_no_others(device: Bench, tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "tiny", "1.0")
    (tmp_path / "device.lock").write_text("tiny==1.0\n")
    body = """import tiny, importlib.util
found = [name for name in ('numpy', 'torch', 'modelbuild.cli', 'pip') if importlib.util.find_spec(name)]
request.outputs['result'].write_text(tiny.VERSION + str(found))"""
    tool = replace(device.tool(body), lock=Lock(tmp_path / "device.lock", "aarch64-manylinux_2_28"))
    result = device.run(prepare(device, tool))
    assert device.text(result.outputs["out/result"]) == "1.0[]"


def test_it_shares_modules_beside_it_and_the_toolkit(device: Bench) -> None:
    tool = device.tool(
        "import beside\nfrom modelbuild.toolkit.progress import report\nreport(1, 2, unit='rows', kind='x')\nreport(2, 2)\nrequest.outputs['result'].write_text(beside.NAME)"
    )
    tool.source.with_name("beside.py").write_text("NAME = 'neighbour'\n")
    result = device.run(prepare(device, tool))
    assert device.text(result.outputs["out/result"]) == "neighbour"
    assert [(each.step, each.total) for each in device.progress][-2:] == [(1, 2), (2, 2)]


def test_an_edited_module_is_never_run_from_an_old_pyc(device: Bench) -> None:
    tool = device.tool("import beside\nrequest.outputs['result'].write_text(beside.NAME)")
    module = tool.source.with_name("beside.py")
    for name in ("one", "two"):
        module.write_text(f"NAME = '{name}'\n")
        os.utime(module, (1, 1))
        assert device.text(device.run(prepare(device, tool)).outputs["out/result"]) == name


def test_a_tree_comes_back(device: Bench) -> None:
    body = "d = request.outputs['model']\n(d / 'a').mkdir(parents=True)\n(d / 'a' / 'f').write_text('1')"
    assert device.tree(run(device, body, model="tree").outputs["out/model"]) == {"a/f": "1"}


def test_there_is_no_network(device: Bench) -> None:
    body = "import socket\nsocket.create_connection(('192.0.2.1', 80), timeout=5)"
    with pytest.raises(ActionFailed) as caught:
        run(device, body)
    assert any("unreachable" in note for note in caught.value.notes)


def test_its_own_words_are_the_error(device: Bench) -> None:
    body = "from modelbuild.toolkit.request import ToolError\nraise ToolError('the battery is empty', 'charge it')"
    with pytest.raises(ActionFailed, match="the battery is empty") as caught:
        run(device, body)
    assert caught.value.hint == "charge it"


def test_an_instruction_that_the_processor_lacks(device: Bench) -> None:
    body = """import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex('00000004c0035fd6'))  # add z0.b, p0/m, z0.b, z0.b; ret: a Cortex-A53 has no SVE
ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()"""
    with pytest.raises(ActionFailed, match="SIGILL") as caught:
        run(device, body)
    assert caught.value.hint is not None
    assert "another CPU" in caught.value.hint


def test_a_cancelled_run_ends_with_all_it_started(device: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "running"
    body = f"open({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(300)"
    timer = threading.Thread(target=_cancel_when, args=(mark, device.cancel))
    timer.start()
    with pytest.raises(Interrupted):
        run(device, body)
    timer.join()
    assert not Path(f"/proc/{mark.read_text()}").exists()


def _cancel_when(path: Path, cancel: threading.Event) -> None:
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    cancel.set()


def test_without_the_emulator_it_says_what_to_install(device: Bench, tmp_path: Path) -> None:
    lock = tmp_path / "other.sysroot"
    shutil.copyfile(LOCK, lock)
    lock.write_text(lock.read_text().replace("qemu-aarch64-static", "qemu-vax-static"))
    prepared = prepare(device, device.tool("pass"))
    runner = Runner("qemu-user", "vax", lock)
    with pytest.raises(EnvironmentFailure, match="qemu-vax-static") as caught:
        device.run(replace(prepared, action=replace(prepared.action, runner=runner)))
    assert caught.value.hint is not None
    assert "qemu-user-static" in caught.value.hint


def test_a_package_that_debian_does_not_have(tmp_path: Path) -> None:
    lock = tmp_path / "bad.sysroot"
    lock.write_text(LOCK.read_text().replace('"zlib1g"', '"no-such-package-anywhere"'))
    environments = ToolEnvironments(str(tmp_path / "cache"))
    try:
        with pytest.raises(EnvironmentFailure, match="cannot be made") as caught:
            environments.acquire_sysroot(read_sysroot_lock(lock), threading.Event())
    finally:
        environments.close()
    assert any("no-such-package-anywhere" in note for note in caught.value.notes)
    assert not list((tmp_path / "cache/environments").glob("*/root"))


def test_nothing_in_the_sysroot_leads_out_of_it(cache: Path) -> None:
    root = next((cache / "environments").glob("*/root"))
    links = [path for path in root.rglob("*") if path.is_symlink()]
    assert links
    for link in links:
        assert not os.readlink(link).startswith("/")
        assert (link.parent / os.readlink(link)).resolve().is_relative_to(root.resolve())

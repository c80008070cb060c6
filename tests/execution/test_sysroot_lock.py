"""Locks of sysroots: what they say, what they must not, and what of them is identity."""

from pathlib import Path
from typing import Any

import pytest

from modelbuild.errors import ModelbuildError
from modelbuild.execution.environment import ToolIdentities, ToolIdentity
from modelbuild.execution.host_program import find_program
from modelbuild.execution.sysroot_lock import SysrootLock, read_sysroot_lock
from modelbuild.rules.device.runner import SYSROOTS
from modelbuild.runner import Runner
from modelbuild.tool import Lock, PythonTool

TEXT = """suite = "bookworm"
architecture = "arm64"
emulator = "bash"
cpu = "cortex-a53"
python = "3.11"
packages = ["libc6", "python3.11-minimal"]
[links]
"usr/lib/x" = "y"
[files]
"proc/cpuinfo" = "processor: 0"
"""


def read(folder: Path, text: str = TEXT) -> SysrootLock:
    (folder / "it.sysroot").write_text(text)
    return read_sysroot_lock(folder / "it.sysroot")


@pytest.mark.parametrize("path", sorted(SYSROOTS.glob("*.sysroot")), ids=lambda path: path.name)
def test_the_committed_locks_are_in_order(path: Path) -> None:
    lock = read_sysroot_lock(path)
    assert list(lock.packages) == sorted(lock.packages)
    assert "libc6" in lock.packages


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('suite = "bookworm"\n', "", "does not say `suite`"),
        ('suite = "bookworm"', 'suite = "book worm"', "`suite` is `book worm`"),
        ('suite = "bookworm"', 'sweet = "bookworm"', "`sweet` means nothing"),
        ('cpu = "cortex-a53"', 'cpu = "-L /"', "`cpu` is"),
        ('"libc6"', '"../../etc"', "not the name of a Debian package"),
        ('"libc6"', '"-o=Debug"', "not the name of a Debian package"),
        ('["libc6", "python3.11-minimal"]', "[]", "no list of packages"),
        ('python = "3.11"', "python = 3.11", "`python` is"),
        ('"usr/lib/x"', '"/usr/lib/x"', "leads out"),
        ('"proc/cpuinfo"', '"../proc/cpuinfo"', "leads out"),
        ('"usr/lib/x" = "y"', '"usr/lib/x" = 3', "no table of texts"),
        ("[links]", "[links", "no TOML"),
    ],
)
def test_a_bad_lock_is_told(tmp_path: Path, before: str, after: str, message: str) -> None:
    assert before in TEXT
    with pytest.raises(ModelbuildError, match=message):
        read(tmp_path, TEXT.replace(before, after))


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelbuildError, match="cannot be read: No such file"):
        read_sysroot_lock(tmp_path / "it.sysroot")


def test_comments_and_order_are_no_identity_and_all_else_is(tmp_path: Path) -> None:
    base = read(tmp_path).digest
    same = TEXT.replace('["libc6", "python3.11-minimal"]', '["python3.11-minimal", "libc6"]')
    assert read(tmp_path, "# A comment.\n" + same).digest == base
    for before, after in (
        ("bookworm", "trixie"),
        ("cortex-a53", "cortex-a72"),
        ('"libc6"', '"libc6=2.36-9"'),
        ("processor: 0", "processor: 1"),
        ('"y"', '"z"'),
    ):
        assert read(tmp_path, TEXT.replace(before, after)).digest != base


def identity(folder: Path, runner: Runner | None, **fields: Any) -> ToolIdentity:
    tool = PythonTool(folder / "tool.py", **fields)
    return ToolIdentities(site_packages=[]).identity(tool, {}, runner)


def test_a_devices_tool_is_its_files_its_lock_and_its_device(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("import numpy\ndef main(request): pass\n")
    (tmp_path / "it.lock").write_text("numpy==2.4.6\n")
    read(tmp_path)
    lock = Lock(tmp_path / "it.lock", "aarch64-manylinux_2_28")
    runner = Runner("qemu-user", "aarch64", tmp_path / "it.sysroot")
    base = identity(tmp_path, runner, lock=lock)
    assert base.detail["machine"] == "linux-aarch64"
    assert base.detail["sysroot"]["libc6"] == "current"
    assert "distributions" not in base.detail
    emulator = find_program("bash")
    assert emulator is not None
    assert {str(tmp_path / "it.sysroot"), emulator} <= set(base.facts)
    here = identity(tmp_path, Runner("ssh", "aarch64", address="pi@one"), lock=lock)
    there = identity(tmp_path, Runner("ssh", "aarch64", address="pi@two"), lock=lock)
    assert here.digest == there.digest != base.digest
    read(tmp_path, TEXT.replace("bookworm", "trixie"))
    assert identity(tmp_path, runner, lock=lock).digest != base.digest


@pytest.mark.parametrize(
    ("platform", "version", "fields", "message"),
    [
        ("", "", {}, "is for this machine, and its tool runs on aarch64"),
        ("aarch64-manylinux_2_28", "3.13", {}, "is for Python 3.13, and"),
        ("aarch64-manylinux_2_28", "", {"programs": ("bash",)}, "packages and programs are not"),
    ],
)
def test_what_a_device_cannot_run_is_refused(
    tmp_path: Path, platform: str, version: str, fields: dict[str, Any], message: str
) -> None:
    (tmp_path / "tool.py").write_text("def main(request): pass\n")
    (tmp_path / "it.lock").write_text("numpy==2.4.6\n")
    read(tmp_path)
    runner = Runner("qemu-user", "aarch64", tmp_path / "it.sysroot")
    with pytest.raises(ModelbuildError, match=message):
        identity(tmp_path, runner, lock=Lock(tmp_path / "it.lock", platform, version), **fields)

from pathlib import Path

import pytest

from modelbuild.api import LOCAL, Lock, Runner, device_lock
from modelbuild.testing import RuleRunner

PATH = Path("/toolchain/runtime.lock")
WHEELS = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}


@pytest.mark.parametrize(
    ("cpu", "system", "runner", "lock"),
    [
        ("x86_64", "linux", LOCAL, Lock(PATH)),
        ("aarch64", "linux", LOCAL, Lock(PATH)),
        ("aarch64", "linux", Runner("qemu-user", "aarch64"), Lock(PATH, "aarch64-manylinux_2_28", "3.11")),
        ("x86_64", "linux", Runner("ssh", "x86_64"), Lock(PATH, "x86_64-manylinux_2_28", "3.11")),
        ("aarch64", "linux", None, Lock(PATH, "aarch64-manylinux_2_28", "3.11")),
        ("aarch64", "android", None, None),
        ("riscv64", "linux", Runner("qemu-user", "riscv64"), None),
    ],
)
def test_a_device_has_the_wheels_of_its_cpu(
    cpu: str, system: str, runner: Runner | None, lock: Lock | None
) -> None:
    platform = RuleRunner().platform("d", cpu=cpu, os=system, runner=runner)
    assert device_lock(PATH, platform, WHEELS) == lock

"""Environments made by uv from wheels that are made here: whole or not at all, once, kept from gc while in use."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelbuild.errors import AnalysisError, CacheError, EnvironmentFailure, Interrupted
from modelbuild.execution.package_source import PackageSource
from modelbuild.execution.tool_environment import ToolEnvironment, ToolEnvironments
from modelbuild.tool import Lock
from tests.wheels import make_sdist, make_wheel

NEVER = threading.Event()


class Place:
    """A cache, a directory of wheels and locks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wheels = root / "wheels"
        self.cache = root / "cache"
        self.cache.mkdir()
        self.said: list[str] = []
        self.warned: list[str] = []
        make_wheel(self.wheels, "tiny", "1.0")
        make_wheel(self.wheels, "tiny", "2.0")

    def source(self) -> PackageSource:
        return PackageSource(
            (str(self.wheels),), offline=True, environment={"UV_CACHE_DIR": str(self.root / "uv")}
        )

    def lock(self, text: str, name: str = "tools/requirements.lock", platform: str = "") -> Lock:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return Lock(path, platform)

    def open(self) -> ToolEnvironments:
        return ToolEnvironments(str(self.cache), self.source, note=self.said.append, warn=self.warned.append)

    def get(self, lock: Lock) -> ToolEnvironment:
        environments = self.open()
        try:
            return environments.acquire(lock, NEVER)
        finally:
            environments.close()

    @property
    def made(self) -> list[str]:
        folder = self.cache / "environments"
        return sorted(path.parent.name for path in folder.glob("*/made.json"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for folder in (place.cache / "environments").rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)


def version(environment: ToolEnvironment) -> str:
    assert environment.python is not None
    command = [environment.python, "-I", "-c", "import tiny; print(tiny.VERSION)"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_contradicting_locks_live_side_by_side(place: Place) -> None:
    first = place.get(place.lock("tiny==1.0\n", "one/requirements.lock"))
    second = place.get(place.lock("tiny==2.0\n", "two/requirements.lock"))
    assert (version(first), version(second)) == ("1.0", "2.0")
    assert place.said == [
        "making environment `one/requirements.lock`: 1 package",
        "making environment `two/requirements.lock`: 1 package",
    ]


def test_it_is_made_once_whatever_the_lock_looks_like(place: Place) -> None:
    make_wheel(place.wheels, "other", "3.0")
    first = place.get(place.lock("tiny==1.0\nother==3.0\n"))
    again = place.get(place.lock("# a comment\n\nOther==3.0   # via nothing\nTINY == 1.0\n", "b/x.lock"))
    assert first == again
    assert len(place.made) == len(place.said) == 1


def test_nothing_of_the_host_is_in_it_and_nothing_can_be_put_into_it(place: Place) -> None:
    environment = place.get(place.lock("tiny==1.0\n"))
    names = {path.name for path in Path(environment.packages).iterdir()}
    assert {name for name in names if not name.startswith("_")} == {"tiny-1.0.dist-info", "tiny.py"}
    assert not os.stat(environment.packages).st_mode & 0o222
    assert environment.python is not None
    code = "import importlib.util as u; print([m for m in ('torch', 'numpy', 'modelbuild', 'pip') if u.find_spec(m)])"
    found = subprocess.run([environment.python, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_a_missing_version_names_package_line_and_cause(place: Place) -> None:
    lock = place.lock("# pinned\ntiny==9.9\n")
    with pytest.raises(
        EnvironmentFailure, match=r"`tiny==9.9` is not at hand, and this build is offline"
    ) as caught:
        place.get(lock)
    assert caught.value.exit_code == 4
    assert str(caught.value.location) == f"{lock.path}:2"
    assert any("tiny==9.9" in note for note in caught.value.notes)
    assert "find_links" in str(caught.value.hint)
    assert place.made == []


def test_a_package_that_does_not_build_is_the_one_that_is_named(place: Place) -> None:
    """uv says what it builds before it says what failed."""
    wheel = make_wheel(place.root / "made", "alright", "1.0")
    for name, does in (
        ("alright", f"shutil.copy({str(wheel)!r}, folder)"),
        ("broken", "raise SystemExit(3)"),
    ):
        function = f"def build_wheel(folder, *_, **__):\n    {does}\n    return {wheel.name!r}\n"
        make_sdist(place.wheels, name, "1.0", f"import shutil\n\n\n{function}")
    lock = place.lock("alright==1.0\nbroken==1.0\n")
    with pytest.raises(EnvironmentFailure, match=r"`broken==1\.0` comes as source only and does not build"):
        place.get(lock)


def test_a_package_that_nobody_has(place: Place) -> None:
    lock = place.lock("tiny==1.0\nno-such-package-anywhere==1.0\n")
    with pytest.raises(EnvironmentFailure, match=r"`no-such-package-anywhere==1.0`") as caught:
        place.get(lock)
    assert str(caught.value.location) == f"{lock.path}:2"


def test_a_lock_that_is_not_complete(place: Place) -> None:
    make_wheel(place.wheels, "needy", "1.0", "tiny>=1", "absent")
    lock = place.lock("needy==1.0\ntiny==1.0\n")
    with pytest.raises(EnvironmentFailure, match="is not complete: `needy` requires `absent`") as caught:
        place.get(lock)
    assert str(caught.value.location) == f"{lock.path}:1"
    assert place.made == []


@pytest.mark.parametrize(
    ("requires", "found"), [((), False), (("cuda_lib>=2; sys_platform == 'linux'",), True)]
)
def test_what_only_another_build_of_a_package_requires_is_installed_with_that_build(
    place: Place, requires: tuple[str, ...], found: bool
) -> None:
    """As torch: the build for CUDA has the same version as the one for the CPU, and requires more."""
    make_wheel(place.wheels, "torchlike", "1.0", *requires)
    make_wheel(place.wheels, "cuda_lib", "3.0", "cuda_more")
    make_wheel(place.wheels, "cuda_more", "3.1")
    text = 'torchlike==1.0\ncuda-lib==3.0 ; extra == "cuda"\ncuda-more==3.1 ; extra == "cuda"\n'
    environment = place.get(place.lock(text))
    assert Path(environment.packages, "cuda_lib.py").is_file() is found
    assert Path(environment.packages, "cuda_more.py").is_file() is found
    assert place.warned == []


def test_a_build_that_requires_more_than_is_held_back_is_an_error(place: Place) -> None:
    make_wheel(place.wheels, "torchlike", "1.0", "cuda_lib", "absent")
    make_wheel(place.wheels, "cuda_lib", "3.0")
    lock = place.lock('torchlike==1.0\ncuda-lib==3.0 ; extra == "cuda"\n')
    with pytest.raises(EnvironmentFailure, match="is not complete: `torchlike` requires `absent`"):
        place.get(lock)


def test_versions_that_do_not_fit_are_a_warning(place: Place) -> None:
    make_wheel(place.wheels, "needy", "1.0", "tiny>=2")
    place.get(place.lock("needy==1.0\ntiny==1.0\n"))
    assert len(place.warned) == 1
    assert "`needy` requires `tiny>=2`" in place.warned[0]


def test_a_wheel_that_is_not_the_one_that_was_pinned(place: Place) -> None:
    lock = place.lock(f"tiny==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    with pytest.raises(EnvironmentFailure, match=r"`tiny==1.0` is another file than the lock says") as caught:
        place.get(lock)
    assert str(caught.value.location) == f"{lock.path}:1"


@pytest.mark.parametrize(
    "line", ["tiny", "tiny>=1.0", "tiny==1.*", "-r other.txt", "--index-url https://x", "./tiny.whl"]
)
def test_only_pins_are_a_lock(place: Place, line: str) -> None:
    lock = place.lock(f"\n{line}\n")
    with pytest.raises(AnalysisError, match="`name==version` lines and nothing else") as caught:
        place.get(lock)
    assert str(caught.value.location) == f"{lock.path}:2"


def test_a_lock_that_is_not_there(place: Place) -> None:
    with pytest.raises(EnvironmentFailure, match="cannot be read: No such file"):
        place.get(Lock(place.root / "none.lock"))


def test_wheels_of_another_machine_are_unpacked(place: Place) -> None:
    make_wheel(
        place.wheels,
        "native",
        "1.0",
        files={"native/lib.so": "aarch64"},
        tag="cp311-cp311-manylinux_2_28_aarch64",
    )
    text = "native==1.0\n"
    environment = place.get(place.lock(text, platform="aarch64-manylinux_2_28"))
    assert environment.python is None
    assert (Path(environment.packages) / "native" / "lib.so").read_text() == "aarch64"
    with pytest.raises(EnvironmentFailure, match=r"`native==1.0` has no wheel for this Python and machine"):
        place.get(place.lock(text))


def test_wheels_of_a_machine_that_uv_does_not_know_come_by_pip(place: Place) -> None:
    files = {"native/lib.so": "armv7"}
    make_wheel(place.wheels, "native", "1.0", files=files, tag="cp311-cp311-manylinux_2_31_armv7l")
    environment = place.get(place.lock("native==1.0\n", platform="armv7-manylinux_2_36"))
    assert environment.python is None
    assert (Path(environment.packages) / "native" / "lib.so").read_text() == "armv7"
    with pytest.raises(EnvironmentFailure, match=r"`native==1.0` is not"):
        place.get(place.lock("native==1.0\n", platform="armv7-manylinux_2_28"))


def test_a_platform_that_nobody_knows(place: Place) -> None:
    with pytest.raises(AnalysisError, match="`pdp-11`, which is no platform that uv knows"):
        place.get(place.lock("tiny==1.0\n", platform="pdp-11"))


def test_a_directory_of_wheels_that_is_not_there(place: Place) -> None:
    shutil.rmtree(place.wheels)
    with pytest.raises(EnvironmentFailure) as caught:
        place.get(place.lock("tiny==1.0\n"))
    assert str(place.wheels) in str(caught.value)
    assert "`find_links` in `modelbuild.toml`" in str(caught.value.hint)


def test_a_source_that_does_not_build(place: Place) -> None:
    with tarfile.open(place.wheels / "raw-1.0.tar.gz", "w:gz") as archive:
        for name, text in {
            "PKG-INFO": "Name: raw\nVersion: 1.0\n",
            "setup.py": "raise SystemExit(1)\n",
        }.items():
            info = tarfile.TarInfo(f"raw-1.0/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    with pytest.raises(EnvironmentFailure, match=r"`raw==1\.0` comes as source only and does not build here"):
        place.get(place.lock("raw==1.0\n"))


def test_a_changed_file_is_noticed(place: Place) -> None:
    lock = place.lock("tiny==1.0\n")
    module = Path(place.get(lock).packages) / "tiny.py"
    module.parent.chmod(0o700)
    module.unlink()
    module.write_text("VERSION = 'hacked'\n")
    assert version(place.get(lock)) == "1.0"
    assert "was changed after it was made" in place.warned[0]


@pytest.mark.parametrize("platform", ["", "aarch64-manylinux_2_28"])
def test_a_file_that_was_changed_in_the_installers_cache_is_fetched_again(
    place: Place, platform: str
) -> None:
    """An edit in place goes through the hard link: what is made anew would be as wrong as before."""
    make_wheel(place.wheels, "other", "3.0")
    lock = place.lock("tiny==1.0\nother==3.0\n", platform=platform)
    module = Path(place.get(lock).packages) / "tiny.py"
    module.chmod(0o600)
    module.write_text("VERSION = 'hacked'\n")
    assert (Path(place.get(lock).packages) / "tiny.py").read_text() == 'VERSION = "1.0"\n'
    assert "was changed after it was made" in place.warned[0]
    (told,) = place.warned[1:]
    assert told.startswith("`tiny.py` of `tiny` was changed in uv's cache, and is fetched again;")
    another = place.lock("tiny==1.0\n", "another/requirements.lock", platform=platform)
    assert (Path(place.get(another).packages) / "tiny.py").read_text() == 'VERSION = "1.0"\n'


def test_a_package_that_lists_itself_wrongly_is_told(place: Place) -> None:
    wheel = make_wheel(place.wheels, "wrong", "1.0")
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    contents["wrong.py"] += b"more = 1\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    place.get(place.lock("tiny==1.0\nwrong==1.0\n"))
    assert place.warned == ["in `tools/requirements.lock`: `wrong.py` of `wrong` is not what its wheel lists"]


def test_an_interpreter_that_went_away(place: Place) -> None:
    lock = place.lock("tiny==1.0\n")
    python = place.get(lock).python
    assert python is not None
    times = os.lstat(python).st_mtime_ns, os.lstat(python).st_mtime_ns
    size = os.lstat(python).st_size
    folder = Path(python).parent
    folder.chmod(0o700)
    os.unlink(python)
    os.symlink("x" * size, python)
    os.utime(python, ns=times, follow_symlinks=False)
    assert version(place.get(lock)) == "1.0"


def test_it_survives_a_move_of_the_cache(place: Place) -> None:
    lock = place.lock("tiny==1.0\n")
    place.get(lock)
    moved = place.root / "moved"
    os.rename(place.cache, moved)
    place.cache = moved
    environment = place.get(lock)
    assert version(environment) == "1.0"
    assert str(moved) in str(environment.python)
    assert len(place.said) == 1


def test_a_full_disk_is_said_to_be_one(place: Place, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    make_wheel(place.wheels, "large", "1.0", files={"large.txt": os.urandom(300_000).hex()})
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=True)
    try:
        place.cache = small
        with pytest.raises(CacheError, match="no space is left"):
            place.get(place.lock("large==1.0\n"))
        assert place.made == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


BUILD = """
import sys, threading
from pathlib import Path
from modelbuild.execution.package_source import PackageSource
from modelbuild.execution.tool_environment import ToolEnvironments
from modelbuild.tool import Lock

root = Path(sys.argv[1])
source = PackageSource((str(root / "wheels"),), offline=True, environment={"UV_CACHE_DIR": str(root / "uv")})
environments = ToolEnvironments(str(root / "cache"), lambda: source, note=lambda text: print(text, flush=True))
print(environments.acquire(Lock(Path(sys.argv[2])), threading.Event()).python, flush=True)
if len(sys.argv) > 3:
    sys.stdin.read()
environments.close()
"""


def start(place: Place, lock: Lock, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(place.root), str(lock.path), *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_builds_make_it_once(place: Place) -> None:
    lock = place.lock("tiny==1.0\n")
    outputs = [process.communicate(timeout=60)[0] for process in [start(place, lock) for _ in range(3)]]
    assert sum("making environment" in output for output in outputs) == 1
    assert len({output.splitlines()[-1] for output in outputs}) == 1


def test_what_a_killed_build_left_is_never_believed(place: Place) -> None:
    """Killed ever later, until it gets through; each time the next one is right."""
    for number in range(40, 46):
        make_wheel(place.wheels, f"part{number}", "1.0")
    lock = place.lock("tiny==1.0\n" + "".join(f"part{number}==1.0\n" for number in range(40, 46)))
    survived = 0
    for step in range(12):
        process = start(place, lock)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(step * 0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        survived += len(place.made)
        environment = place.get(lock)
        assert version(environment) == "1.0"
        assert (Path(environment.packages) / "part45.py").exists()
        folder = place.cache / "environments" / place.made[0]
        for path in (folder, *folder.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(folder)
    assert survived < 12


def test_a_cancelled_action_does_not_wait(place: Place) -> None:
    holder = start(place, place.lock("tiny==1.0\n"), "hold")
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.stdout.readline()
    cancel = threading.Event()
    cancel.set()
    environments = place.open()
    try:
        with pytest.raises(Interrupted):
            environments.acquire(place.lock("tiny==2.0\n"), cancel)
    finally:
        environments.close()
        holder.communicate("")

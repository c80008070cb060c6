"""An environment of its own: modelbuild and the example installed in it, from wheels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelbuild.execution.package_source import package_source
from modelbuild.loading.workspace import Settings
from tests.docs.markdown import ROOT

EXAMPLE = ROOT / "examples/modelbuild-numpy"


@dataclass(frozen=True)
class Installation:
    """An environment. variables: of a shell in which it is active."""

    root: Path
    variables: Mapping[str, str]

    def run(self, directory: Path, *command: str) -> str:
        """Run a program of it; its stdout."""
        environment = {"HOME": str(directory), "LANG": "C.UTF-8", "NO_COLOR": "1", **self.variables}
        done = subprocess.run(
            [str(self.root / "bin" / command[0]), *command[1:]],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """modelbuild from a wheel, and links to the packages that these tests run with, for its tools."""
    root = tmp_path_factory.mktemp("installation") / "venv"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert uv is not None
    variables = _variables(uv)
    made = Installation(root, variables | {"VIRTUAL_ENV": str(root), "PATH": f"{root}/bin:/usr/bin:/bin"})
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, root], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(root)}))
    how = "-al" if site.stat().st_dev == Path(sysconfig.get_path("purelib")).stat().st_dev else "-a"
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        if "modelbuild" not in each.name and each.suffix != ".pth" and each.name != "__pycache__":
            # Hard links: what uv replaces here is replaced here only. Through a symlink it would write there.
            subprocess.run(["cp", how, str(each), str(site)], check=True)
    (root / "bin/uv").symlink_to(uv)
    made.run(root, "uv", "pip", "install", "--quiet", "--no-deps", str(ROOT))
    return made


def _variables(uv: str) -> dict[str, str]:
    """Where packages come from, and uv's cache: what is in it need not be fetched."""
    source = package_source(Settings(), ROOT, os.environ)
    cache = subprocess.run([uv, "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip()
    links = {"UV_FIND_LINKS": ",".join(source.find_links)} if source.find_links else {}
    return {**source.environment, **links, "UV_CACHE_DIR": cache, "TMPDIR": os.environ.get("TMPDIR", "/tmp")}

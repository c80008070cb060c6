"""The guide to toolchains, followed from top to bottom with the example really installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.docs.markdown import ROOT
from tests.docs.test_commands import follow
from tests.examples.conftest import EXAMPLE, Installation

pytestmark = pytest.mark.slow
GUIDE = ROOT / "docs/guides/writing-a-toolchain.md"


@pytest.fixture(scope="module")
def shop(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace that the guide makes, when it is done."""
    place = tmp_path_factory.mktemp("guide") / "here"
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(EXAMPLE, place / EXAMPLE.name, ignore=ignored)
    assert follow(GUIDE, place, "run: installed", environment=installation.variables) > 10
    return place / "shop"


def read(shop: Path, name: str) -> Any:
    return json.loads((shop / "modelbuild-out" / name).read_text())


def test_the_package_is_the_wheel(shop: Path, installation: Installation) -> None:
    (wheel,) = (shop / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("BUILD.models", "platforms/BUILD.models", "convert.lock", "runtime.lock", "device_tool.py"):
        assert f"modelbuild_numpy/{name}" in names
    code = "import modelbuild, modelbuild_numpy; print(modelbuild.__file__, modelbuild_numpy.__file__)"
    for place in installation.run(shop, "python", "-c", code).split():
        assert Path(place).is_relative_to(installation.root)


def test_numpy_answers_as_torch_does(shop: Path) -> None:
    verdict = read(shop, "release/digits_parity_test/verdict.json")
    assert verdict["passed"] is True
    exact = read(shop, "release/release/host/candidate/npz-fp32/cell.json")
    assert exact["parity"]["max_error"] < 1e-4
    assert exact["parity"]["top1_agreement"] == 1
    assert exact["parity"]["exact_match"] > 0.8  # The model has learnt something, so that agreeing means it.
    rounded = read(shop, "release/release/host/candidate/npz-int8/cell.json")
    assert exact["parity"]["max_error"] < rounded["parity"]["max_error"] < 0.5


def test_sizes_are_those_that_were_told(shop: Path) -> None:
    for path in shop.glob("modelbuild-out/release/release/*/*/*/cell.json"):
        cell = json.loads(path.read_text())
        assert cell["size_bytes"] == cell["predicted"]["disk"]
    host = read(shop, "release/release/host/candidate/npz-int8/cell.json")
    assert host["peak_rss_bytes"] < host["predicted"]["ram"]


def test_the_matrix_has_a_verdict_for_every_device(shop: Path, installation: Installation) -> None:
    document = json.loads(installation.run(shop, "modelbuild", "matrix", "--json", "--quiet", "//release"))
    found = {
        (cell["platform"].rpartition(":")[2], cell["format"]): cell["verdict"] for cell in document["cells"]
    }
    assert found == {
        ("host", "npz:fp32"): "pass",
        ("host", "npz:int8"): "pass",
        ("pi_zero_w", "npz:fp32"): "unverified",
        ("pi_zero_w", "npz:int8"): "unverified",
        ("pico_2", ""): "impossible",
    }


def test_devices_share_one_conversion(shop: Path) -> None:
    host, zero = (
        (shop / f"modelbuild-out/release/release/{name}/candidate/npz-int8/model.npz").resolve()
        for name in ("host", "pi_zero_w")
    )
    assert host == zero


def test_a_second_build_runs_nothing(shop: Path, installation: Installation, tmp_path: Path) -> None:
    (shop / "BUILD.models").write_text((shop / "BUILD.models").read_text() + "\n# A comment.\n")
    events = tmp_path / "events"
    installation.run(shop, "modelbuild", "build", "--quiet", "--events", str(events), "//...")
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert lines[-1]["event"] == "build_finished"
    assert not [line for line in lines if line["event"] == "action_finished" and line["result"] == "executed"]


def test_a_picture_is_named(shop: Path, installation: Installation, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    picture = tmp_path / "picture.json"
    picture.write_text(json.dumps((load_digits().images[0] / 16).tolist()))
    answer = installation.run(shop, "modelbuild", "run", "--quiet", "//:digits", "--", str(picture))
    assert answer.startswith(f"{picture}: 0 (")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_header_compiles(shop: Path, tmp_path: Path) -> None:
    header = shop / "modelbuild-out/release/digits_h/digits.h"
    source = tmp_path / "main.c"
    source.write_text(f'#include "{header}"\nint main(void) {{ return DIGITS_HEADS - 4; }}\n')
    flags = ["-std=c99", "-Wall", "-Werror", "-Wno-unused-const-variable"]
    subprocess.run(["cc", *flags, "-o", tmp_path / "main", source], check=True)
    subprocess.run([tmp_path / "main"], check=True)

"""`modelbuild matrix` over a toolchain of one file: cells that pass, fail, break and cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.command_line import CommandLine

RULES = '''
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelbuild.api import (
    Context, Conversion, DefaultInfo, DeviceBinaryInfo, Footprint, ModelInfo, Provider, PythonTool, Rule,
    RuntimeToolchainInfo,
)

HERE = Path(__file__).parent


class Weights(Rule):
    """A model of `size` bytes."""

    size: int

    def analyze(self, ctx: Context):
        out = ctx.declare_file("weights")
        ctx.write(out, "w" * self.size)
        return [DefaultInfo((out,)), ModelInfo(out, "image_classification", {"size": self.size})]


@dataclass(frozen=True)
class ToyInfo(RuntimeToolchainInfo):
    def refusal(self, conversion):
        return "it takes no such thing" if conversion.format == "toy:none" else ""

    def footprint(self, conversion):
        size = conversion.model.architecture["size"]
        return Footprint(disk=size, weights=size, runtime=10)

    def convert(self, ctx, conversion: Conversion):
        out = ctx.declare_file(f"{conversion.prefix}model.toy")
        ctx.run(
            tool=PythonTool(HERE / "convert_tool.py"),
            mnemonic="Toy",
            inputs={"model": conversion.model.weights},
            outputs={"model": out},
            params={"format": conversion.format},
        )
        return DeviceBinaryInfo(out, conversion.format, self.runtime, conversion.platform.label)

    def device_tool(self, platform):
        return None


class ToyToolchain(Rule):
    def analyze(self, ctx: Context):
        return [DefaultInfo(), ToyInfo("toy", ("toy:a", "toy:b", "toy:broken", "toy:none"))]
'''

CONVERT = """
from modelbuild.toolkit.request import Request, ToolError


def main(request: Request) -> None:
    if request.params["format"] == "toy:broken":
        raise ToolError("the converter does not like it")
    text = request.inputs["model"].read_text()
    request.outputs["model"].write_text(text + ("" if request.params["format"] == "toy:a" else "more"))
"""

BUILD = """
load("//toolchains:rule.py", "toy_toolchain", "weights")

package(default_visibility = ["//visibility:public"])

toolchain_type(name = "runtime")
toy_toolchain(name = "toy")
toolchain(
    name = "toy_linux",
    toolchain = ":toy",
    toolchain_type = ":runtime",
    target_compatible_with = ["@platforms//os:linux"],
)

platform(name = "big", constraint_values = ["@platforms//os:linux", "@platforms//cpu:riscv64"], not_run = "far away")
platform(name = "small", parents = [":big"], disk = "102 B", ram = "1 kB")
platform(name = "phone", constraint_values = ["@platforms//os:ios"])

weights(name = "thin", size = 100)
weights(name = "fat", size = 5000)
release_candidate(name = "one", model = ":thin", formats = ["toy:b", "toy:a"])
release_candidate(name = "two", model = ":fat")
release_candidate(name = "bad", model = ":thin", formats = ["toy:broken"])

artifact_matrix(
    name = "release",
    artifacts = [":one", ":two", ":bad"],
    platforms = [":big", ":small", ":phone"],
    exclude = [{"artifact": ":bad", "platform": ":small"}],
)

artifact_matrix(name = "fine", artifacts = [":one"], platforms = [":big"], formats = ["toy:a", "toy:none"])
"""


@pytest.fixture
def matrix(workspace: CommandLine) -> CommandLine:
    workspace.put("modelbuild.toml", '[build]\ntoolchains = ["//toolchains:all"]\n')
    workspace.put("toolchains/rule.py", RULES)
    workspace.put("toolchains/convert_tool.py", CONVERT)
    workspace.put("toolchains/BUILD.models", BUILD)
    return workspace


def test_every_cell_has_a_verdict_and_a_reason(matrix: CommandLine) -> None:
    done = matrix.run("matrix", "//toolchains:release", "--json")
    document = json.loads(done.stdout)
    cells = {(c["platform"].partition(":")[2], c["artifact"].partition(":")[2]): c for c in document["cells"]}
    assert done.exit_code == 1  # One is broken, and the others are made all the same.
    assert {name: cell["verdict"] for name, cell in cells.items()} == {
        ("big", "one"): "unverified",
        ("big", "two"): "unverified",
        ("big", "bad"): "broken",
        ("small", "one"): "fail",  # Predicted to fit, and the converter added four bytes.
        ("small", "two"): "impossible",
        ("phone", "one"): "impossible",
        ("phone", "two"): "impossible",
        ("phone", "bad"): "impossible",
    }
    assert cells["big", "bad"]["reason"] == "`//toolchains:release` failed: the converter does not like it"
    assert "104 bytes, and the platform has room for 102" in cells["small", "one"]["reason"]
    assert "too large for `//toolchains:small`" in cells["small", "two"]["reason"]
    assert cells["phone", "one"]["reason"] == "no toolchain is for `//toolchains:phone`"
    assert (matrix.root / cells["big", "one"]["binary"]).read_text() == "w" * 100 + "more"
    assert document["separate_actions"] > document["actions"] >= document["executed"]


def test_formats_make_a_cell_each_and_a_second_run_runs_nothing(matrix: CommandLine) -> None:
    first = json.loads(matrix.run("matrix", "//toolchains:fine", "--json").stdout)
    assert [(cell["format"], cell["verdict"]) for cell in first["cells"]] == [("toy:a", "unverified")]
    again = matrix.run("matrix", "//toolchains:fine", "--json")
    assert json.loads(again.stdout)["executed"] == 0
    assert again.exit_code == 0


def test_the_table_markdown_and_page_say_the_same(matrix: CommandLine, tmp_path: Path) -> None:
    plain = matrix.run("matrix", "//toolchains:release")
    assert re.search(r"^small +one +toy:b +104 B .* fail$", plain.stdout, re.MULTILINE), plain.stdout
    assert "broken: `//toolchains:release` failed: the converter does not like it: big: bad" in plain.stdout
    page = tmp_path / "page.html"
    text = matrix.run("matrix", "//toolchains:release", "--markdown", "--html", str(page)).stdout
    assert re.search(r"\| small \| one \| toy:b \| 104 B .*\| fail \| it has 104 bytes", text)
    html = page.read_text()
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "https://" not in html
    assert html.count('<span class="badge impossible">') == 4
    assert "the converter does not like it" in html


def test_what_is_no_matrix_is_refused(matrix: CommandLine) -> None:
    for pattern, words in (
        ("//toolchains:one", "is a `release_candidate` and no matrix"),
        ("//...", "takes one target"),
    ):
        done = matrix.run("matrix", pattern)
        assert done.exit_code == 2
        assert words in done.stderr
    matrix.put(
        "toolchains/BUILD.models",
        BUILD.replace('"platform": ":small"}', '"platform": "//nowhere"}'),
    )
    done = matrix.run("matrix", "//toolchains:release")
    assert done.exit_code == 2
    assert "`exclude` has an entry that excludes nothing" in done.stderr

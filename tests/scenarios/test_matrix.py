"""`modelbuild matrix` over a toolchain of one file: cells that pass, fail, break and cannot be."""

from __future__ import annotations

import json
import os
import re
import signal
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
        ctx.write(ctx.declare_file(f"{conversion.prefix}beside.txt"), "x")
        if conversion.format == "toy:needy":
            ctx.fail("it needs data", hint="give it data")
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
        return [DefaultInfo(), ToyInfo("toy", ("toy:a", "toy:b", "toy:broken", "toy:none", "toy:needy"))]
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

artifact_matrix(name = "fine", artifacts = [":one"], platforms = [":big"], formats = ["toy:none", "toy:a", "toy:needy", "toy:unheard"])
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
    assert [(cell["format"], cell["verdict"], cell["reason"]) for cell in first["cells"]] == [
        ("toy:a", "unverified", "nothing is measured: it has no probes"),
        ("toy:none", "impossible", "it takes no such thing"),
        ("toy:needy", "impossible", "it needs data"),
        ("toy:unheard", "impossible", "no toolchain of `//toolchains:big` makes `toy:unheard`"),
    ]
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


def test_size_tells_the_cells_of_a_matrix(matrix: CommandLine) -> None:
    told = matrix.run("size", "//toolchains:release")
    assert told.exit_code == 0, told.stderr
    document = json.loads(matrix.run("size", "//toolchains:release", "--json").stdout)
    (found,) = document["matrices"]
    cells = json.loads(matrix.run("matrix", "//toolchains:release", "--json").stdout)["cells"]
    assert len(found["cells"]) == len(cells)
    assert [cell["format"] for cell in found["cells"]] == [cell["format"] or None for cell in cells]
    for cell in found["cells"]:
        assert ("disk" in cell) or cell["reason"]
        assert cell["reason"].partition(";")[0] in " ".join(told.stdout.split())
    refused = matrix.run("size", "//toolchains:release", "--formats")
    assert (refused.exit_code, "hint: name one of its artifacts" in refused.stderr) == (2, True)


def test_what_is_no_matrix_is_refused(matrix: CommandLine) -> None:
    nothing = matrix.run("matrix")
    assert (nothing.exit_code, "`modelbuild matrix` needs a target" in nothing.stderr) == (2, True)
    assert matrix.run("matrix", "//toolchains:fine", "--html", "").exit_code == 2
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


SAME_NAMES = """
load("//toolchains:rule.py", "weights")

package(default_visibility = ["//visibility:public"])

weights(name = "thin", size = 100)
platform(name = "big", constraint_values = ["@platforms//os:linux", "@platforms//cpu:riscv64"], not_run = "far away")
alias(name = "large", actual = ":big")

artifact_matrix(
    name = "both",
    artifacts = [":thin", "//toolchains:thin"],
    platforms = [":large", "//toolchains:big"],
    exclude = [
        {"artifact": "//toolchains:thin", "platform": ":large"},
        {"platform": ":large", "format": "toy:n*"},
    ],
    formats = ["toy:a", "toy:none"],
)

artifact_matrix(
    name = "all_excluded",
    artifacts = [":thin"],
    platforms = [":big"],
    exclude = [{"platform": "//p:big"}, {"artifact": ":thin"}],
)
"""


def test_artifacts_and_devices_of_the_same_name_are_told_apart(matrix: CommandLine) -> None:
    matrix.put("p/BUILD.models", SAME_NAMES)
    done = matrix.run("matrix", "//p:both", "--json")
    assert done.exit_code == 0, done.stderr
    cells = {(c["artifact"], c["platform"], c["format"]): c for c in json.loads(done.stdout)["cells"]}
    assert set(cells) == {
        ("//p:thin", "//p:big", "toy:a"),
        ("//p:thin", "//toolchains:big", "toy:a"),
        ("//p:thin", "//toolchains:big", "toy:none"),
        ("//toolchains:thin", "//toolchains:big", "toy:a"),
        ("//toolchains:thin", "//toolchains:big", "toy:none"),
    }
    binaries = {cell["binary"] for cell in cells.values() if cell["binary"]}
    assert len(binaries) == 3
    assert all((matrix.root / path).is_file() for path in binaries)
    table = matrix.run("matrix", "//p:both").stdout
    assert re.search(r"^//toolchains:big +//p:thin +toy:a ", table, re.MULTILINE), table


@pytest.mark.parametrize(
    ("artifacts", "platforms", "message"),
    [
        ('[":thin"]', '[":big", ":large"]', "`platforms` names a platform twice"),
        ('[":thin"]', "[]", "attribute `platforms` must name at least 1"),
        ("[]", '[":big"]', "attribute `artifacts` must name at least 1"),
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(
    matrix: CommandLine, artifacts: str, platforms: str, message: str
) -> None:
    declared = f"artifact_matrix(name = 'm', artifacts = {artifacts}, platforms = {platforms})\n"
    matrix.put("p/BUILD.models", SAME_NAMES + declared)
    done = matrix.run("matrix", "//p:m")
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_matrix_may_exclude_everything(matrix: CommandLine) -> None:
    matrix.put("p/BUILD.models", SAME_NAMES)
    done = matrix.run("matrix", "//p:all_excluded")
    assert done.exit_code == 0
    assert "0 cells. 0 actions" in done.stdout


def test_what_was_measured_of_an_earlier_build_is_not_shown_for_this_one(
    matrix: CommandLine, tmp_path: Path
) -> None:
    assert "unverified" in matrix.run("matrix", "//toolchains:fine").stdout
    page = tmp_path / "page.html"
    page.write_text("the page of the earlier build")
    assert matrix.run("matrix", "//toolchains:nowhere", "--html", str(page)).exit_code == 2
    assert page.read_text() == "the page of the earlier build"
    mark = tmp_path / "started"
    slow = CONVERT.replace(
        "    text =", f"    open({str(mark)!r}, 'w').close()\n    __import__('time').sleep(300)\n    text ="
    )
    matrix.put("toolchains/convert_tool.py", slow)
    running = matrix.start("matrix", "//toolchains:fine", "--json")
    while not mark.exists():
        assert running.poll() is None, running.communicate()
    os.kill(running.pid, signal.SIGINT)
    stdout, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    cell = json.loads(stdout)["cells"][0]
    assert (cell["verdict"], cell["reason"]) == ("broken", "the build ended before it was made")
    assert cell["report"] is None

"""`pip install modelbuild` alone: small, without torch, and enough for genrules and for tools that bring a lock."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from modelbuild.execution.package_source import package_source
from modelbuild.loading.workspace import Settings
from tests.command_line import CHAIN, CommandLine

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
RULE = """
from pathlib import Path

from modelbuild.api import DefaultInfo, Lock, PythonTool, Rule

HERE = Path(__file__).parent


class Six(Rule):
    def analyze(self, ctx):
        out = ctx.declare_file("out.txt")
        tool = PythonTool(HERE / "tool.py", lock=Lock(HERE / "requirements.lock"))
        ctx.run(tool=tool, params={}, inputs={}, outputs={"out": out}, mnemonic="Six")
        return [DefaultInfo((out,))]
"""
TOOL = """
import six


def main(request):
    request.outputs["out"].write_text(six.__version__)
"""


@pytest.mark.slow
def test_the_core_alone_builds_explains_and_fetches(
    workspace: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the packages that pyproject.toml requires, from the index, and no other."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    environment = tmp_path / "core"
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    variables = os.environ | package_source(Settings(), tmp_path, os.environ).environment
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    install = [UV, "pip", "install", "--quiet", "--python", environment / "bin/python", *required]
    subprocess.run(install, check=True, env=variables)
    listed = subprocess.run(
        [UV, "pip", "list", "--python", environment / "bin/python", "--format", "freeze"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert len(listed.splitlines()) <= 20, listed
    assert not {"torch", "numpy", "transformers", "onnx"} & {
        line.partition("==")[0] for line in listed.splitlines()
    }

    def modelbuild(*arguments: str) -> str:
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from modelbuild.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [environment / "bin/python", "-P", "-c", code, *arguments],
            cwd=workspace.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    workspace.put("in.txt", "hello\n")
    workspace.put("title.txt", "title\n")
    workspace.put("rules/six/BUILD.models", "")
    workspace.put("rules/six/rule.py", RULE)
    workspace.put("rules/six/tool.py", TOOL)
    workspace.put("rules/six/requirements.lock", "six==1.17.0\n")
    workspace.put("BUILD.models", f'load("//rules/six:rule.py", "six")\nsix(name = "six")\n{CHAIN}')
    modelbuild("build", "//...")
    assert workspace.out("report.txt").split() == ["6", "title"]
    assert workspace.out("six/out.txt") == "1.17.0"
    assert "up to date" in modelbuild("explain", "//:report")
    assert "quantize" in modelbuild("help", "rules")
    assert "bits" in modelbuild("help", "rule", "quantize")

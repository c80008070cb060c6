"""run_tool holds tools to what a build holds them to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelbuild.api import AnalysisError, PythonTool
from modelbuild.testing import run_tool
from modelbuild.toolkit.request import ToolError

HEAD = "from modelbuild.toolkit.request import Request, ToolError\n\n\ndef main(request: Request) -> None:\n"


def tool(folder: Path, *lines: str, head: str = "") -> Path:
    path = folder / "tools" / "tool.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(head + HEAD + "".join(f"    {line}\n" for line in lines))
    return path


def test_inputs_become_outputs(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "words.py").write_text("def shout(text):\n    return text.upper()\n")
    (tmp_path / "a.txt").write_text("hold")
    source = tool(
        tmp_path,
        "text = request.inputs['text'].read_text() * request.params['times'][0]",
        "request.outputs['loud/text'].write_text(shout(text) + str(request.threads))",
        "request.outputs['tree'].mkdir()",
        "(request.outputs['tree'] / 'x').write_text(' '.join(request.arguments))",
        head="from words import shout\n",
    )
    made = run_tool(
        source,
        tmp_path,
        inputs={"text": tmp_path / "a.txt"},
        outputs=["loud/text", "tree"],
        params={"times": (2,)},  # As JSON, a list.
        threads=3,
        arguments=["b"],
    )
    assert made["loud/text"].read_text() == "HOLDHOLD3"
    assert (made["tree"] / "x").read_text() == "b"
    assert "words" not in sys.modules
    assert not list((tmp_path / "tools").glob("__pycache__"))
    again = run_tool(
        source,
        tmp_path,
        inputs={"text": tmp_path / "a.txt"},
        outputs=["loud/text", "tree"],
        params={"times": [1]},
    )
    assert again["tree"] != made["tree"]


def test_each_tool_has_its_own_siblings(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "layout.py").write_text(f"NAME = {name!r}\n")
        source = folder / "tool.py"
        source.write_text(f"from layout import NAME\n{HEAD}    request.outputs['name'].write_text(NAME)\n")
        assert run_tool(source, tmp_path, outputs=["name"])["name"].read_text() == name


def test_scratch_is_for_those_that_can_go_on(tmp_path: Path) -> None:
    source = tool(tmp_path, "request.outputs['o'].write_text(str(request.scratch is not None))")
    assert run_tool(source, tmp_path, outputs=["o"])["o"].read_text() == "False"
    assert run_tool(source, tmp_path, outputs=["o"], resumable=True)["o"].read_text() == "True"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pass", "did not make its output `o`"),
        ("(request.outputs['o'].write_text(''), open('log.txt', 'w').close())", "made `log.txt`"),
        (
            "(request.outputs['o'].write_text(''), request.inputs['i'].write_text('2'))",
            "changed its input `i`",
        ),
    ],
)
def test_what_a_build_refuses_is_refused(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "i").write_text("a longer text")
    with pytest.raises(AssertionError, match=message):
        run_tool(tool(tmp_path, line), tmp_path, inputs={"i": tmp_path / "i"}, outputs=["o"])


def test_what_is_beside_an_input_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "i").write_text("1")
    (tmp_path / "j").write_text("2")
    source = tool(tmp_path, "(request.inputs['i'].parent / 'j').read_text()")
    with pytest.raises(FileNotFoundError):
        run_tool(source, tmp_path, inputs={"i": tmp_path / "i"})
    with pytest.raises(AssertionError, match="is not there"):
        run_tool(source, tmp_path, inputs={"i": tmp_path / "k"})


def test_a_refusal_reaches_the_test(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="no thanks"):
        run_tool(tool(tmp_path, "raise ToolError('no thanks')"), tmp_path)


def test_an_import_must_be_declared(tmp_path: Path) -> None:
    source = tool(tmp_path, "request.outputs['o'].write_text(networkx.__name__)", head="import networkx\n")
    with pytest.raises(AnalysisError, match="imports `networkx` but does not declare"):
        run_tool(PythonTool(source), tmp_path, outputs=["o"])
    made = run_tool(PythonTool(source, ("networkx",)), tmp_path, outputs=["o"])
    assert made["o"].read_text() == "networkx"
    with pytest.raises(AnalysisError, match=r"a tool imports `modelbuild\.api`"):
        run_tool(tool(tmp_path, "pass", head="import modelbuild.api\n"), tmp_path)


def test_params_are_plain_data(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        run_tool(tool(tmp_path, "pass"), tmp_path, params={"path": tmp_path})
    source = tool(tmp_path, "request.outputs['o'].write_text(__import__('json').dumps(request.params))")
    made = run_tool(source, tmp_path, outputs=["o"], params={"a": [1, None]})
    assert json.loads(made["o"].read_text()) == {"a": [1, None]}

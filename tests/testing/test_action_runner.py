"""ActionRunner runs what rules declare; tools with a lock in the environment of their lock."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from modelbuild.api import Artifact, Context, DefaultInfo, Lock, Provider, PythonTool, Rule
from modelbuild.testing import ActionRunner, RuleRunner, run_tool
from modelbuild.toolkit.request import ToolError
from tests.wheels import make_wheel

HEAD = "from modelbuild.toolkit.request import Request, ToolError\n\n\ndef main(request: Request) -> None:\n"
TEXT = Artifact("text.txt", "source")


def tool(folder: Path, name: str, *lines: str, head: str = "") -> Path:
    path = folder / f"{name}_tool.py"
    path.write_text(head + HEAD + "".join(f"    {line}\n" for line in lines))
    return path


class Chain(Rule):
    """Doubles a text twice, beside a note."""

    tool: str

    def analyze(self, ctx: Context) -> Sequence[Provider]:
        note, once, twice = (ctx.declare_file(name) for name in ("note", "once", "twice"))
        tree = ctx.declare_tree("tree")
        ctx.write(note, "a note")
        for source, made in ((TEXT, once), (once, twice)):
            ctx.run(
                tool=PythonTool(Path(self.tool)),
                mnemonic="Double",
                inputs={"text": source},
                outputs={"doubled": made},
                params={},
            )
        ctx.symlink_tree(tree, {"a/note": note, "b": twice})
        return [DefaultInfo((tree,))]


class Shell(Rule):
    def analyze(self, ctx: Context) -> Sequence[Provider]:
        out = ctx.declare_file("out")
        ctx.run_shell(command="true", inputs={}, outputs={"out": out})
        return [DefaultInfo((out,))]


def test_actions_run_in_order_and_equal_ones_once(tmp_path: Path) -> None:
    source = tool(
        tmp_path,
        "double",
        "text = request.inputs['text'].read_text()",
        "request.outputs['doubled'].write_text(text * 2)",
    )
    (tmp_path / "text.txt").write_text("ab")
    runner, actions = RuleRunner(), ActionRunner(tmp_path, {TEXT: tmp_path / "text.txt"})
    target = runner.analyze(Chain, name="one", tool=str(source))
    tree = actions.run(target)[target.files[0]]
    assert (tree / "a/note").read_text() == "a note"
    assert (tree / "b").read_text() == "abababab"
    calls = len(list(tmp_path.glob("double_tool-*")))
    assert calls == 2
    actions.run(runner.analyze(Chain, name="other", tool=str(source)))
    assert len(list(tmp_path.glob("double_tool-*"))) == calls


def test_what_it_cannot_run_is_told(tmp_path: Path) -> None:
    source = tool(tmp_path, "double", "pass")
    target = RuleRunner().analyze(Chain, tool=str(source))
    with pytest.raises(AssertionError, match=r"needs `text\.txt`, which the test does not provide"):
        ActionRunner(tmp_path, {}).run(target)
    with pytest.raises(AssertionError, match="is a shell command"):
        ActionRunner(tmp_path, {}).run(RuleRunner().analyze(Shell))


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """Pins a package that these tests do not have."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "tinyruntime", "1.5")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    path = tmp_path / "requirements.lock"
    path.write_text("tinyruntime==1.5\n")
    return Lock(path)


def test_a_lock_is_what_a_tool_runs_with(
    tmp_path: Path, lock: Lock, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tool(
        tmp_path,
        "locked",
        "import tempfile",
        "tempfile.mkstemp()",
        "print(request.arguments[0])",
        "text = request.inputs['text'].read_text() + request.params['more'] + tinyruntime.VERSION",
        "request.outputs['made/it'].write_text(text)",
        head="import tinyruntime\n",
    )
    (tmp_path / "text.txt").write_text("a")
    for _ in range(2):
        made = run_tool(
            PythonTool(source, lock=lock),
            tmp_path,
            inputs={"text": tmp_path / "text.txt"},
            outputs=["made/it"],
            params={"more": "b"},
            arguments=["said"],
            environments=tmp_path / "environments",
        )
        assert made["made/it"].read_text() == "ab1.5"
    assert capsys.readouterr().out == "said\nsaid\n"
    with pytest.raises(ModuleNotFoundError):
        run_tool(PythonTool(source, lock=lock), tmp_path, inputs={"text": tmp_path / "text.txt"})


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("raise ToolError('no thanks', 'ask again')", "no thanks", "ask again"),
        ("raise ValueError('what')", r"Traceback(.|\n)*ValueError: what", None),
        ("import numpy", "No module named 'numpy'", None),
    ],
)
def test_a_locked_tool_fails_as_it_says(
    tmp_path: Path, lock: Lock, line: str, message: str, hint: str | None
) -> None:
    source = tool(tmp_path, "failing", line)
    with pytest.raises(ToolError, match=message) as caught:
        run_tool(PythonTool(source, lock=lock), tmp_path, environments=tmp_path / "environments")
    assert caught.value.hint == hint

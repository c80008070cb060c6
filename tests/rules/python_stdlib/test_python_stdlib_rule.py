import sysconfig
from pathlib import Path

import pytest

from modelbuild.analysis.context import Context
from modelbuild.errors import AnalysisError
from modelbuild.label import Label
from modelbuild.provider import DefaultInfo
from modelbuild.rules.python_stdlib.rule import PythonStdlib


def test_each_file_is_a_source_and_no_path_of_this_machine_is_a_logical_name() -> None:
    ctx = Context(Label("", "targets/stdlib", "lib"))
    (info,) = PythonStdlib(name="lib").analyze(ctx)
    assert isinstance(info, DefaultInfo)
    (action,) = ctx.actions
    assert list(action.outputs.values()) == list(info.files)
    root = sysconfig.get_path("stdlib")
    for name, artifact in action.inputs.items():
        assert artifact.is_source
        assert artifact.path == f"{root}/{name}"
    assert "argparse.py" in action.inputs


def test_an_interpreter_without_sources_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(AnalysisError, match="no library source"):
        PythonStdlib(name="lib").analyze(Context(Label("", "p", "lib")))

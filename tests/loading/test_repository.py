"""`@name//...`: rules and targets that come with an installed Python package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from modelbuild.cli.main import main
from modelbuild.label import parse_label
from modelbuild.loading.repository import repository_module, repository_root

if TYPE_CHECKING:
    from tests.loading.conftest import Tree


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed distribution whose entry point names its package `acme_rules` as `@acme`."""
    site = tmp_path / "site"
    info = site / "acme-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[modelbuild.repositories]\nacme = acme_rules\n")
    package = site / "acme_rules"
    (package / "quant").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "quant" / "__init__.py").touch()
    (package / "quant" / "rule.py").write_text(
        "from __future__ import annotations\nfrom modelbuild.api import Files, Rule\n"
        "class Crush(Rule):\n    srcs: list[Files] = []\n"
    )
    (package / "quant" / "defs.bzl").write_text("NAME = 'n'\n")
    (package / "quant" / "data.txt").touch()
    (package / "quant" / "BUILD.models").write_text(
        "exports_files(['data.txt'])\nfilegroup(name = 'all', srcs = ['data.txt'], visibility = ['//visibility:public'])\n"
        "filegroup(name = 'own', visibility = ['//visibility:private'])\n"
    )
    monkeypatch.syspath_prepend(str(site))
    repository_module.cache_clear()
    repository_root.cache_clear()
    yield package
    repository_module.cache_clear()
    repository_root.cache_clear()
    for name in [n for n in sys.modules if n.partition(".")[0] == "acme_rules"]:
        del sys.modules[name]


@pytest.mark.usefixtures("acme")
def test_help_knows_the_rules_of_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nowhere").mkdir()
    monkeypatch.chdir(tmp_path / "nowhere")
    assert main(["help", "rule", "crush"]) == 0
    assert 'load("@acme//quant:rule.py", "crush")' in capsys.readouterr().out
    assert main(["help", "rule"]) == 0
    assert (
        "rules of this workspace and of installed packages, to be loaded:\n  crush" in capsys.readouterr().out
    )


def test_rules_macros_targets_and_files_of_a_repository(acme: Path, tree: Tree) -> None:
    tree.write(
        "BUILD.models",
        "load('@acme//quant:rule.py', 'crush')\nload('@acme//quant:defs.bzl', 'NAME')\n"
        "crush(name = NAME, srcs = ['@acme//quant:all', '@acme//quant:data.txt'])\n",
    )
    graph = tree.load("//:n")
    assert graph.targets[parse_label("//:n")].rule_class.__module__ == "acme_rules.quant.rule"
    assert [str(label) for label in graph.order] == ["@acme//quant:all", "//:n"]
    assert graph.sources == {parse_label("@acme//quant:data.txt"): str(acme / "quant" / "data.txt")}
    assert str(acme / "quant" / "rule.py") in graph.facts.files
    assert tree.match("@acme//...") == ["@acme//quant:all", "@acme//quant:own"]

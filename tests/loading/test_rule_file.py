"""Rules that a workspace has in its own rule files."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.errors import LoadError
from modelbuild.loading.rule_file import workspace_rules

RULE = """
from modelbuild.api import Rule
from modelbuild.rules.native.genrule import Genrule


class _Base(Rule):
    pass


class MyRule(_Base):
    pass
"""


def test_public_rules_that_a_file_defines_itself_are_found(tmp_path: Path) -> None:
    for place in ("toolchains/one", "rules", "elsewhere", "toolchains/.hidden"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "rule.py").write_text(
            RULE.replace("MyRule", f"{Path(place).name.strip('.').title()}Rule")
        )
    found = workspace_rules(str(tmp_path))
    assert {name: rule.file for name, rule in found.items()} == {
        "one_rule": "//toolchains/one:rule.py",
        "rules_rule": "//rules:rule.py",
    }


def test_a_rule_file_that_fails_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rule.py").write_text("\nraise ValueError('no')\n")
    with pytest.raises(LoadError, match="fails: ValueError: no") as caught:
        workspace_rules(str(tmp_path))
    assert str(caught.value.location) == "rules/rule.py:2"

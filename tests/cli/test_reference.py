from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.cli import reference
from modelbuild.cli.main import COMMANDS

PAGES = {"rules.md": "# Rules\n", "rules/train.md": "# train\n"}


@pytest.fixture(autouse=True)
def few_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "pages", lambda: {n: reference.GENERATED + t for n, t in PAGES.items()})


def test_check_notices_missing_stale_and_left_over_pages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "reference"
    assert reference.main([str(folder), "--check"]) == 1
    assert not folder.exists()
    assert reference.main([str(folder)]) == 0
    assert reference.main([str(folder), "--check"]) == 0
    (folder / "rules.md").write_text("edited")
    (folder / "rules" / "gone.md").write_text(reference.GENERATED + "# gone\n")
    (folder / "README.md").write_text("by hand")
    capsys.readouterr()
    assert reference.main([str(folder), "--check"]) == 1
    shown = capsys.readouterr().err
    assert "rules.md is not what the rules say" in shown
    assert "gone.md is not what the rules say" in shown
    assert reference.main([str(folder)]) == 0
    assert sorted(p.name for p in folder.rglob("*.md")) == ["README.md", "rules.md", "train.md"]


def test_commands_page_names_every_command() -> None:
    page = reference.commands_page()
    assert all(f"\n## {name}\n" in page for name in COMMANDS)


def test_events_page() -> None:
    page = reference.events_page()
    assert page.count("\n## action_finished\n") == 1
    assert "| `peak_rss_bytes` | `int` |" in page

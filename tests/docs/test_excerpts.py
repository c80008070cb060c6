"""Code that a document shows of a file of this repository is in that file, in that order."""

from pathlib import Path

import pytest

from tests.docs.markdown import DOCUMENTS, ROOT, Block, blocks

_MARK = "from: "
_SHOWING = [d for d in DOCUMENTS if any(block.mark.startswith(_MARK) for block in blocks(d))]


def parts(text: str) -> list[str]:
    """What lies between lines `...`."""
    found = [""]
    for line in text.splitlines(keepends=True):
        if line.strip() == "...":
            found.append("")
        else:
            found[-1] += line
    return [part for part in found if part.strip()]


def first_missing(block: Block, content: str) -> str | None:
    """The first part that the file does not have behind the one before it; whole lines are compared."""
    at = 0
    content = "\n" + content
    for part in parts(block.text):
        found = content.find("\n" + part, at)
        if found < 0:
            return part
        at = found + len(part)
    return None


@pytest.mark.parametrize("document", _SHOWING, ids=lambda d: str(d.relative_to(ROOT)))
def test_shown_code_is_the_code(document: Path) -> None:
    for block in blocks(document):
        if block.mark.startswith(_MARK):
            path = ROOT / block.mark.removeprefix(_MARK)
            missing = first_missing(block, path.read_text())
            assert missing is None, f"{document.name}:{block.line}: {path.name} does not hold\n{missing}"


def test_the_guide_to_toolchains_shows_code() -> None:
    assert ROOT / "docs/guides/writing-a-toolchain.md" in _SHOWING


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("a\nb\n", None),
        ("a\n...\nd\n", None),
        ("d\n...\na\n", "a\n"),
        ("a\nc\n", "a\nc\n"),
        ("lpha\n", "lpha\n"),
    ],
)
def test_what_is_not_there_is_noticed(text: str, missing: str | None) -> None:
    block = Block("from: x", "python", text, 1)
    assert first_missing(block, "alpha\na\nb\nc\nd\n") == missing

"""Reads the Markdown of this repository: fenced blocks with the mark above each, and links.

A mark is an HTML comment on the line above a fence:

    <!-- run -->              the block's `$ ` lines are commands, run one after the other in one workspace
    <!-- run: slow -->        likewise, by the slow tests only
    <!-- run: installed -->   likewise, where modelbuild is installed with the guide's package (tests/examples)
    <!-- file: PATH -->       the block is the whole content of a file of that workspace
    <!-- from: PATH -->       the block is parts of a file of this repository; `...` stands for any lines
    <!-- not run: REASON -->  it is shown, and no test runs it
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/guides/*.md"),
        *ROOT.glob("docs/adr/*.md"),
        *ROOT.glob("changelog.d/*.md"),
        ROOT / "cache/README.md",
    ]
)
SHELL_FENCES = ("console", "sh", "bash", "shell")

_FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: what the comment above it says, or empty."""

    mark: str
    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command and the lines it is said to print."""

    command: str
    expected: tuple[str, ...]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document, in order."""
    text = path.read_text()
    return [
        Block(
            match["mark"] or "",
            match["language"],
            match["text"],
            text.count("\n", 0, match.start("language")) + 1,
        )
        for match in _FENCE.finditer(text)
    ]


def commands(block: Block) -> list[Command]:
    """The commands of a console block. `$ ` starts one, `> ` goes on with it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        elif found:
            found[-1][1].append(line)
        else:
            raise ValueError(f"line {block.line}: output before the first command: {line!r}")
    return [Command(command, tuple(output)) for command, output in found]


def links(path: Path) -> list[str]:
    """The targets of all links, outside of fences."""
    return _LINK.findall(_FENCE.sub("", path.read_text()))


def anchors(path: Path) -> set[str]:
    """The fragments that headings of a document can be linked by, as GitHub makes them."""
    headings = _HEADING.findall(_FENCE.sub("", path.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

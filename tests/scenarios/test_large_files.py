"""Large files are linked, never copied."""

import os
from pathlib import Path

from tests.command_line import CommandLine

GIB = 1 << 30


def disk_usage(directory: Path) -> int:
    """Bytes that the files below take on disk, links not followed."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*") if not path.is_symlink())


def test_an_input_of_a_gibibyte_adds_no_copy(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "size", srcs = ["large.bin"], outs = ["size.txt"], cmd = "stat -Lc %s $< > $@")',
    )
    with (workspace.root / "large.bin").open("wb") as stream:
        os.truncate(stream.fileno(), GIB)
    workspace.build()
    assert workspace.out("size.txt") == f"{GIB}\n"
    assert disk_usage(workspace.root / "cache") < 10 << 20


def test_an_output_is_stored_once(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "make", outs = ["large.bin"], cmd = "head -c 30000000 /dev/urandom > $@")\n'
        'genrule(name = "size", srcs = [":make"], outs = ["size.txt"], cmd = "stat -Lc %s $< > $@")\n',
    )
    workspace.build()
    assert workspace.out("size.txt") == "30000000\n"
    stored = disk_usage(workspace.root / "cache") + disk_usage(workspace.root / "modelbuild-out")
    assert stored < 40_000_000

"""Corrupted, truncated and deleted blobs, full disks, read-only caches."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command_line import CommandLine


def blob_of(workspace: CommandLine, output: str) -> Path:
    return (workspace.root / "modelbuild-out" / output).resolve()


@pytest.mark.parametrize("damage", ["corrupt", "truncate", "delete", "edit in place", "same size and time"])
def test_a_damaged_blob_is_noticed_and_rebuilt(chain: CommandLine, damage: str) -> None:
    chain.build()
    blob = blob_of(chain, "count.txt")
    before = blob.stat()
    blob.chmod(0o644)
    if damage == "delete":
        blob.unlink()
    elif damage == "truncate":
        os.truncate(blob, 0)
    elif damage == "edit in place":
        with blob.open("a") as stream:
            stream.write("more")
    else:
        blob.write_bytes(bytes(byte ^ 1 for byte in blob.read_bytes()))
    if damage == "same size and time":
        os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = chain.build()
    assert result.executed() == {"//:count"}
    assert chain.out("report.txt") == "6\ntitle\n"
    assert chain.out("count.txt") == "6\n"
    assert chain.build().finished["executed"] == 0


def test_a_damaged_blob_of_the_past_is_not_restored(chain: CommandLine) -> None:
    chain.build()
    blob = blob_of(chain, "count.txt")
    chain.put("in.txt", "a longer text\n")
    chain.build()
    blob.chmod(0o644)
    blob.write_text("9\n")
    chain.put("in.txt", "hello\n")
    assert chain.build().executed() == {"//:count"}
    assert chain.out("report.txt") == "6\ntitle\n"


@pytest.mark.parametrize("part", ["index.sqlite", "trace.sqlite", "snapshots", "ac", "tool_identities.json"])
@pytest.mark.parametrize("damage", ["delete", "garbage"])
def test_a_damaged_index_costs_time_only(chain: CommandLine, part: str, damage: str) -> None:
    chain.build()
    for path in (chain.root / "cache").glob(f"{part}*"):
        if damage == "delete":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
            for file in files:
                file.write_bytes(b"\x00garbage")
    chain.put("title.txt", "new title\n")
    chain.build()
    assert chain.out("report.txt") == "6\nnew title\n"
    assert chain.build().finished["executed"] == 0


@contextmanager
def mounted(directory: Path, *options: str) -> Iterator[None]:
    """A tmpfs, or a skip with the reason where mounting is refused."""
    directory.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(directory)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def test_a_full_disk_gives_exit_code_4_and_a_usable_cache(workspace: CommandLine, tmp_path: Path) -> None:
    workspace.put(
        "BUILD.models",
        "\n".join(
            f'genrule(name = "g{i}", srcs = ["size.txt"], outs = ["g{i}.bin"], '
            f"cmd = \"head -c $$(cat $<) /dev/zero | tr '\\\\0' {chr(97 + i)} > $@\")"
            for i in range(6)
        ),
    )
    workspace.put("size.txt", "3000000\n")
    cache = tmp_path / "small"
    with mounted(cache, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        result = workspace.run("build", "--cache-dir", str(cache), "//...")
        assert result.exit_code in (1, 4), result.stderr
        assert result.exit_code == 4, result.stderr
        assert "disk" in result.stderr or "space" in result.stderr
        workspace.put("size.txt", "1000\n")
        good = workspace.build("--cache-dir", str(cache), "//...")
        assert good.finished["executed"] == 6
        assert workspace.out("g5.bin") == "f" * 1000
        check = workspace.run("cache", "verify", "--cache-dir", str(cache))
        assert check.exit_code == 0, check.stdout + check.stderr


def test_a_record_that_cannot_be_kept_is_what_failed_and_not_the_targets(chain: CommandLine) -> None:
    chain.put("cache/snapshots", "a file where a directory belongs")
    result = chain.build(expect=4)
    assert "failed after 3 targets had been built: 3 executed" in result.stderr
    assert "snapshots" in result.stderr
    assert "what was asked for is built" in result.stderr
    assert [event["event"] for event in result.events].count("build_finished") == 1
    assert (result.finished["executed"], result.finished["targets"]) == (3, 3)
    assert chain.out("report.txt") == "6\ntitle\n"
    chain.put("cache/snapshots", "").unlink()
    assert chain.build().finished["executed"] == 0


def test_a_read_only_cache_works_for_hits(chain: CommandLine, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    chain.build("--cache-dir", str(cache), "//...")
    chain.put("in.txt", "something else\n")
    shutil.rmtree(chain.root / "modelbuild-out")
    with mounted(cache, "--bind", str(cache)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(cache)], check=True)
        chain.put("in.txt", "hello\n")
        result = chain.build("--cache-dir", str(cache), "//...")
        assert result.finished["executed"] == 0
        assert chain.out("report.txt") == "6\ntitle\n"
        chain.put("title.txt", "new\n")
        missed = chain.run("build", "--cache-dir", str(cache), "//...")
        assert missed.exit_code == 4
        assert "hint:" in missed.stderr

"""Workspaces of N trivial commands in chains of five, one for each build system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

LENGTH = 5


def chains(count: int) -> list[list[tuple[str, str]]]:
    """(input, output) pairs, chain by chain."""
    result = []
    for first in range(0, count, LENGTH):
        length = min(LENGTH, count - first)
        names = [f"in{first // LENGTH}.txt"] + [f"out{first + i}.txt" for i in range(length)]
        result.append(list(zip(names[:-1], names[1:], strict=True)))
    return result


def write_sources(root: Path, count: int) -> None:
    """The input of every chain."""
    root.mkdir(parents=True, exist_ok=True)
    for chain in chains(count):
        (root / chain[0][0]).write_text(f"{chain[0][0]}\n")


def write_modelbuild(root: Path, count: int) -> None:
    """One package, N genrules."""
    rules = [
        f'genrule(name = "t{out[3:-4]}", srcs = ["{src}"], outs = ["{out}"], cmd = "cat $< > $@; echo x >> $@")'
        for chain in chains(count)
        for src, out in chain
    ]
    (root / "modelbuild.toml").write_text("")
    (root / "BUILD.models").write_text("\n".join(rules) + "\n")


def write_bazel(root: Path, count: int) -> None:
    """The same BUILD file under Bazel's names."""
    write_modelbuild(root, count)
    (root / "WORKSPACE").write_text("")
    (root / "BUILD").write_text((root / "BUILD.models").read_text())


def write_ninja(root: Path, count: int) -> None:
    """build.ninja with one rule."""
    lines = ["rule step", "  command = cat $in > $out; echo x >> $out"]
    lines += [f"build {out}: step {src}" for chain in chains(count) for src, out in chain]
    (root / "build.ninja").write_text("\n".join(lines) + "\n")


def write_make(root: Path, count: int) -> None:
    """A Makefile with one rule for each output."""
    pairs = [pair for chain in chains(count) for pair in chain]
    lines = ["all: " + " ".join(out for _, out in pairs)]
    lines += [f"{out}: {src}\n\tcat $< > $@; echo x >> $@" for src, out in pairs]
    (root / "Makefile").write_text("\n".join(lines) + "\n")


def write_doit(root: Path, count: int) -> None:
    """A dodo.py with a task generator."""
    pairs = [pair for chain in chains(count) for pair in chain]
    (root / "dodo.py").write_text(
        f"PAIRS = {pairs!r}\n"
        "def task_step():\n"
        "    for src, out in PAIRS:\n"
        "        yield {'name': out, 'file_dep': [src], 'targets': [out],\n"
        "               'actions': [f'cat {src} > {out}; echo x >> {out}']}\n"
    )


def write_snakemake(root: Path, count: int) -> None:
    """A Snakefile with one rule for each output."""
    pairs = [pair for chain in chains(count) for pair in chain]
    lines = ["rule all:", "    input: " + ", ".join(repr(out) for _, out in pairs)]
    for src, out in pairs:
        lines += [f"rule t{out[3:-4]}:", f"    input: {src!r}", f"    output: {out!r}"]
        lines += ["    shell: 'cat {input} > {output}; echo x >> {output}'"]
    (root / "Snakefile").write_text("\n".join(lines) + "\n")


def write_dvc(root: Path, count: int) -> None:
    """A dvc.yaml with one stage for each output."""
    lines = ["stages:"]
    for chain in chains(count):
        for src, out in chain:
            command = f"cat {src} > {out}; echo x >> {out}"
            lines += [f"  t{out[3:-4]}:", f"    cmd: {command}"]
            lines += [f"    deps: [{src}]", f"    outs: [{out}]"]
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "modelbuild": write_modelbuild,
    "ninja": write_ninja,
    "make": write_make,
    "doit": write_doit,
    "bazel": write_bazel,
    "snakemake": write_snakemake,
    "dvc": write_dvc,
}

"""The commands that read a workspace, called as a person calls them; one workspace for all, in order."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelbuild.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `modelbuild init` makes, built once, with a package that tests and loads."""
    root = tmp_path_factory.mktemp("init") / "ws"
    assert main(["init", str(root), "--quiet"]) == 0
    package = root / "lib"
    package.mkdir()
    (package / "rules.bzl").write_text(
        "def copy(name, src):\n"
        '    native.genrule(name = name, srcs = [src], outs = [name + ".txt"], cmd = "cp $< $@")\n'
    )
    (package / "BUILD.models").write_text(
        'load(":rules.bzl", "copy")\n'
        'copy(name = "copied", src = "//:greeting")\n'
        'copy(name = "notes", src = "notes.md")\n'
        'genrule(name = "by_hand", outs = ["h.txt"], cmd = "echo h > $@", tags = ["manual"])\n'
        'genrule(name = "broken", outs = ["b.txt"], cmd = "echo why; false", tags = ["manual"])\n'
    )
    (package / "notes.md").write_text("notes\n")
    text = (root / "BUILD.models").read_text()
    public = 'package(default_visibility = ["//visibility:public"])\n'
    (root / "BUILD.models").write_text(public + text + 'filegroup(name = "x")\n')
    return root


@pytest.fixture(autouse=True)
def inside(workspace: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(workspace)
    yield
    os.chdir(before)


def out_of(capture: Capture, *words: str, code: int = 0) -> list[str]:
    assert main(words) == code, capture.readouterr().err
    return capture.readouterr().out.splitlines()


def test_init_wants_a_name(capsys: Capture) -> None:
    assert main(["init", ""]) == 2
    assert "has no name" in capsys.readouterr().err


def test_a_current_directory_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["build", "//..."]) == 2
    assert "the current directory is gone" in capsys.readouterr().err


def test_init_refuses_to_overwrite(capsys: Capture) -> None:
    assert main(["init", "."]) == 2
    assert "holds `modelbuild.toml` already" in capsys.readouterr().err


def test_build_then_nothing_to_do(capsys: Capture) -> None:
    assert main(["build", "//:shout", "--events", "events.jsonl", "--profile", "profile.json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "built 1 target: 2 executed" in captured.err
    assert Path("modelbuild-out/shout.txt").read_text() == "HELLO, MODELBUILD\n"
    rows = [json.loads(line) for line in Path("events.jsonl").read_text().splitlines()]
    assert [row["event"] for row in (rows[0], rows[-1])] == ["build_started", "build_finished"]
    assert any(e["ph"] == "X" for e in json.loads(Path("profile.json").read_text())["traceEvents"])
    assert main(["build", "//:shout"]) == 0
    assert "//:shout is up to date" in capsys.readouterr().err


def test_json_result(capsys: Capture) -> None:
    document: dict[str, Any] = json.loads("\n".join(out_of(capsys, "build", "//:shout", "--json", "--quiet")))
    assert document["exit_code"] == 0
    assert document["targets"] == [
        {"label": "//:shout", "built": True, "files": ["modelbuild-out/shout.txt"]}
    ]
    document = json.loads("\n".join(out_of(capsys, "build", "//:shot", "--json", code=2)))
    assert document["error"] == "there is no target `//:shot`"


def test_failed_action(capsys: Capture) -> None:
    assert main(["build", "//lib:broken"]) == 1
    shown = capsys.readouterr().err
    assert "error: `//lib:broken` failed" in shown
    assert "why" in shown
    assert "failed: 0 of 1 target built" in shown


def test_explain(capsys: Capture) -> None:
    assert out_of(capsys, "explain", "//:shout")[0] == "//:shout ran: never built here"
    Path("name.txt").write_text("you\n")
    shown = out_of(capsys, "explain", "//...")
    Path("name.txt").write_text("modelbuild\n")
    assert any(line.startswith("//:greeting would run: inputs: name.txt sha256:") for line in shown)
    assert any(line.startswith("//:shout waits for `//:greeting`") for line in shown)
    rows = json.loads("\n".join(out_of(capsys, "explain", "//:shout", "--json")))
    assert rows[0]["status"] == "up_to_date"
    assert set(rows[0]["last"]["components"]) == {"schema", "command", "tool", "inputs", "platform"}


@pytest.mark.parametrize(
    ("query", "labels"),
    [
        (
            "//...",
            [
                "//:greeting",
                "//:shout",
                "//:x",
                "//lib:broken",
                "//lib:by_hand",
                "//lib:copied",
                "//lib:notes",
            ],
        ),
        ("deps(//lib:copied)", ["//:greeting", "//:name.txt", "//lib:copied"]),
        ("rdeps(//..., //:name.txt)", ["//:greeting", "//:name.txt", "//:shout", "//lib:copied"]),
        ("kind('source file', deps(//...))", ["//:name.txt", "//lib:notes.md"]),
        ("attr(tags, manual, //...)", ["//lib:broken", "//lib:by_hand"]),
        ("attr(generator_function, copy, //...)", ["//lib:copied", "//lib:notes"]),
        ("labels(srcs, //lib:copied)", ["//:greeting"]),
        ("buildfiles(//lib:notes)", ["//lib:BUILD.models", "//lib:rules.bzl"]),
        ("//...:* ^ kind(generated, //...:*) ^ filter('//:', //...:*)", ["//:greeting.txt", "//:shout.txt"]),
        ("deps(//:greeting.txt, 1)", ["//:greeting", "//:greeting.txt"]),
    ],
)
def test_query(query: str, labels: list[str], capsys: Capture) -> None:
    assert out_of(capsys, "query", query) == labels


def test_query_errors(capsys: Capture) -> None:
    assert main(["query", "deps(//:greeting"]) == 2
    assert "the query ends where" in capsys.readouterr().err
    assert main(["query"]) == 2
    assert main(["query", "deps(//:none)"]) == 2
    assert "there is no target `//:none`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "labels"),
    [
        ("name.txt", ["//:greeting", "//:shout", "//lib:copied"]),
        ("lib/notes.md", ["//lib:notes"]),
        ("lib/rules.bzl", ["//lib:broken", "//lib:by_hand", "//lib:copied", "//lib:notes"]),
        ("README.md", []),
        ("lib/new.md", ["//lib:broken", "//lib:by_hand", "//lib:copied", "//lib:notes"]),
    ],
)
def test_affected_files(file: str, labels: list[str], capsys: Capture) -> None:
    assert out_of(capsys, "affected", file) == labels


def test_affected_since_a_commit(capsys: Capture) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@x", *words], check=True, capture_output=True
        )

    assert main(["affected", "--since", "HEAD"]) == 2
    assert "is in no git repository" in capsys.readouterr().err
    git("init", "-b", "main")
    git("add", "-A")
    git("commit", "-m", "x")
    assert out_of(capsys, "affected", "--since", "HEAD") == []
    Path("lib/notes.md").write_text("other notes\n")
    assert out_of(capsys, "affected", "--since", "HEAD") == ["//lib:notes"]
    Path(os.fsdecode(b"\xff.bin")).touch()
    assert out_of(capsys, "affected", "--since", "HEAD") == ["//lib:notes"]
    assert out_of(capsys, "affected", "--since", "main", "--merge-base", "--tests") == []
    assert main(["affected", "--since", "nowhere"]) == 2
    assert "`git diff` failed" in capsys.readouterr().err
    assert main(["affected"]) == 2


def test_aquery(capsys: Capture) -> None:
    shown = out_of(capsys, "aquery", "//:shout")
    assert shown[0] == "Genrule //:shout"
    assert "  output modelbuild-out/shout.txt" in shown
    rows = json.loads("\n".join(out_of(capsys, "aquery", "//:shout", "--deps", "--json")))
    assert [row["owner"] for row in rows] == ["//:greeting", "//:shout"]
    for expression, owners in (
        ("deps(//:shout)", ["//:greeting", "//:shout"]),
        ("deps(//:shout) - //:shout", ["//:greeting"]),
        ("kind(rule, set(//:shout))", ["//:shout"]),
    ):
        rows = json.loads("\n".join(out_of(capsys, "aquery", expression, "--json")))
        assert [row["owner"] for row in rows] == owners
    assert main(["aquery", "dep(//:shout)"]) == 2
    assert "has no function `dep`" in capsys.readouterr().err


def test_cquery(capsys: Capture) -> None:
    assert out_of(capsys, "cquery", "deps(//:greeting)") == ["//:greeting (any)", "//:name.txt (null)"]


def test_log(capsys: Capture) -> None:
    assert main(["log", "//lib:copied"]) == 2
    assert "no run of `//lib:copied` is known here" in capsys.readouterr().err


def test_cache_commands(capsys: Capture) -> None:
    stats = json.loads("\n".join(out_of(capsys, "cache", "stats", "--json")))
    assert stats["entries"] >= 2
    assert out_of(capsys, "cache", "verify")[0].startswith("verified ")
    assert "kept" in out_of(capsys, "cache", "gc", "--max-size", "1 GB", "--max-age", "30d")[0]
    assert main(["cache", "gc", "--max-size", "many"]) == 2
    assert "hint: write it as in `500 MB`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("cache", "stats"), 0),
        (("cache", "verify"), 0),
        (("cache", "gc", "--max-age", "1d"), 0),
        (("log", "//:x"), 2),
    ],
)
@pytest.mark.parametrize("exists", [False, True], ids=["absent", "empty"])
def test_what_only_looks_at_a_cache_makes_none(
    words: tuple[str, ...], code: int, exists: bool, capsys: Capture, tmp_path: Path
) -> None:
    cache = tmp_path / "none"
    if exists:
        cache.mkdir()
    assert main([*words, "--cache-dir", str(cache)]) == code
    said = capsys.readouterr().err
    assert "there is no cache at" in said or "no run of `//:x` is known here" in said
    assert cache.exists() == exists
    assert not exists or not list(cache.iterdir())


def test_cache_dir_from_flag_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("MODELBUILD_CACHE_DIR", str(tmp_path / "env"))
    assert out_of(capsys, "info", "cache") == [str(tmp_path / "env")]
    assert out_of(capsys, "info", "cache", "--cache-dir", "here") == [str(Path.cwd() / "here")]
    monkeypatch.delenv("MODELBUILD_CACHE_DIR")
    assert out_of(capsys, "info", "cache") == [str(Path.cwd() / "cache")]


def test_completion_of_labels(capsys: Capture) -> None:
    assert out_of(capsys, "complete", "--", "bui") == ["build"]
    assert out_of(capsys, "complete", "--", "build", "//li") == ["//lib:"]
    assert "//lib:by_hand" in out_of(capsys, "complete", "--", "build", "//lib:")
    assert "//:shout" in out_of(capsys, "complete", "--", "build", "//:s")
    assert out_of(capsys, "complete", "--", "build", "--keep") == ["--keep-going"]
    assert out_of(capsys, "complete", "--", "build", "--config", "") == ["ci"]
    assert out_of(capsys, "complete", "--", "help", "rule", "genr") == ["genrule"]
    assert out_of(capsys, "complete", "--", "cache", "g") == ["gc"]
    assert out_of(capsys, "complete", "--", "query", "-o", "label") == ["label", "label_kind"]

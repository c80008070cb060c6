"""What must not rebuild, does not; what must, does; and the reason is told."""

import os
import shutil
from pathlib import Path

from tests.command_line import CHAIN, CommandLine

ALL = {"//:upper", "//:count", "//:report"}


def test_a_first_build_runs_all_and_a_second_nothing(chain: CommandLine) -> None:
    first = chain.build()
    assert first.executed() == ALL
    assert first.finished["executed"] == 3
    assert chain.out("report.txt") == "6\ntitle\n"
    second = chain.build()
    assert second.finished["executed"] == 0
    assert second.finished["unchanged"] == 3
    assert set(second.outcomes().values()) == {"unchanged"}


def test_early_cutoff(chain: CommandLine) -> None:
    chain.build()
    chain.put("in.txt", "HELLO\n")  # Upper-cased it is the same.
    result = chain.build()
    assert result.executed() == {"//:upper"}
    assert result.finished["unchanged"] == 2
    chain.put("in.txt", "world\n")  # As long as before.
    assert chain.build().executed() == {"//:upper", "//:count"}


def test_only_what_depends_on_an_edit_runs(chain: CommandLine) -> None:
    chain.build()
    chain.put("title.txt", "other\n")
    assert chain.build().executed() == {"//:report"}


def test_a_reverted_edit_is_restored_without_a_run(chain: CommandLine) -> None:
    chain.build()
    chain.put("in.txt", "longer text\n")
    assert chain.build().executed() == ALL
    chain.put("in.txt", "hello\n")
    result = chain.build()
    assert result.finished["executed"] == 0
    assert result.finished["local_hits"] == 3
    assert chain.out("report.txt") == "6\ntitle\n"


def test_deleted_outputs_are_restored_without_a_run(chain: CommandLine) -> None:
    chain.build()
    (chain.root / "modelbuild-out" / "count.txt").unlink()
    assert chain.build().finished["executed"] == 0
    assert chain.out("count.txt") == "6\n"
    shutil.rmtree(chain.root / "modelbuild-out")
    assert chain.build().finished["executed"] == 0
    assert chain.out("report.txt") == "6\ntitle\n"


def test_a_comment_a_touch_and_a_checkout_rebuild_nothing(chain: CommandLine) -> None:
    chain.build()
    chain.put("BUILD.models", "# A comment.\n" + CHAIN)
    assert chain.build().finished["executed"] == 0
    os.utime(chain.root / "in.txt")
    assert chain.build().finished["executed"] == 0
    content = (chain.root / "in.txt").read_text()
    (chain.root / "in.txt").unlink()
    chain.put("in.txt", content)
    assert chain.build().finished["executed"] == 0


def test_a_renamed_target_rebuilds_nothing(chain: CommandLine) -> None:
    chain.build()
    chain.put("BUILD.models", CHAIN.replace('"upper"', '"shout"').replace('":upper"', '":shout"'))
    result = chain.build()
    assert result.finished["executed"] == 0
    assert "//:shout" in result.outcomes()


def test_a_moved_workspace_rebuilds_nothing(chain: CommandLine, tmp_path: Path) -> None:
    chain.build()
    moved = CommandLine(tmp_path / "elsewhere" / "other name")
    moved.root.parent.mkdir()
    chain.root.rename(moved.root)
    assert moved.build().finished["executed"] == 0
    assert moved.out("report.txt") == "6\ntitle\n"
    moved.put("title.txt", "other\n")
    assert "title.txt" in moved.run("explain", "//:report").stdout  # Its history has moved, too.


def test_workspaces_that_share_a_cache_are_told_their_own_history(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one, two = CommandLine(tmp_path / "one"), CommandLine(tmp_path / "two")
    for workspace, word in ((one, "first"), (two, "second")):
        workspace.put("modelbuild.toml", f'[build]\ncache_dir = "{cache}"\n')
        workspace.put("BUILD.models", f'genrule(name = "t", outs = ["t"], cmd = "echo {word} | tee $@")\n')
        assert "no run of `//:t` is known here" in workspace.run("log", "//:t").stderr
        assert "never built here" in workspace.run("explain", "//:t").stdout
        workspace.build()
    assert (one.run("log", "//:t").stdout, two.run("log", "//:t").stdout) == ("first\n", "second\n")
    explained = one.run("explain", "//:t").stdout
    assert "ran: never built here" in explained
    assert "second" not in explained


def test_a_fresh_checkout_with_a_shared_cache_rebuilds_nothing(chain: CommandLine, tmp_path: Path) -> None:
    cache = str(tmp_path / "shared")
    chain.build("--cache-dir", cache, "//...")
    clone = CommandLine(tmp_path / "clone")
    clone.root.mkdir()
    for name in ("modelbuild.toml", "BUILD.models", "in.txt", "title.txt"):
        shutil.copyfile(chain.root / name, clone.root / name)
    result = clone.build("--cache-dir", cache, "//...")
    assert result.finished["executed"] == 0
    assert result.finished["local_hits"] == 3
    assert clone.out("report.txt") == "6\ntitle\n"


def test_a_changed_command_and_mode_rebuild(chain: CommandLine) -> None:
    chain.build()
    chain.put("BUILD.models", CHAIN.replace("wc -c", "wc -l"))
    assert chain.build().executed() == {"//:count", "//:report"}
    (chain.root / "title.txt").chmod(0o755)
    assert chain.build().executed() == {"//:report"}
    assert "inputs: title.txt is now executable" in chain.run("explain", "//:report").stdout


def test_a_new_file_of_a_glob_is_noticed(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "all", srcs = glob(["*.txt"]), outs = ["all.out"], cmd = "cat $(SRCS) > $@")',
    )
    workspace.put("a.txt", "a\n")
    workspace.build()
    assert workspace.build().finished["unchanged"] == 1
    workspace.put("b.txt", "b\n")
    assert workspace.build().finished["executed"] == 1
    assert workspace.out("all.out") == "a\nb\n"
    (workspace.root / "a.txt").unlink()
    assert workspace.build().finished["executed"] == 1
    assert workspace.out("all.out") == "b\n"


def test_where_a_link_below_a_glob_leads_is_noticed(workspace: CommandLine) -> None:
    workspace.put(
        "d/BUILD.models",
        'genrule(name = "g", srcs = glob(["*.txt"]), outs = ["list"], cmd = "echo $(SRCS) > $@")\n',
    )
    workspace.put("d/a.txt", "a")
    (workspace.root / "d" / "b.txt").symlink_to("../elsewhere")
    assert workspace.build("//...").exit_code == 0
    assert workspace.out("d/list") == "d/a.txt\n"
    workspace.put("elsewhere", "b")
    assert workspace.build("//...").exit_code == 0
    assert workspace.out("d/list") == "d/a.txt d/b.txt\n"
    (workspace.root / "elsewhere").unlink()
    assert workspace.build("//...").exit_code == 0
    assert workspace.out("d/list") == "d/a.txt\n"


def test_a_new_package_below_a_glob_is_noticed(workspace: CommandLine) -> None:
    rule = 'genrule(name = "all", srcs = glob(["**/*.txt"]), outs = ["all.out"], cmd = "cat $(SRCS) > $@")'
    workspace.put("BUILD.models", rule)
    workspace.put("a.txt", "a\n")
    workspace.put("sub/b.txt", "b\n")
    workspace.build()
    assert workspace.out("all.out") == "a\nb\n"
    workspace.put("sub/BUILD.models", "")
    workspace.build("//:all")
    workspace.build()
    assert workspace.out("all.out") == "a\n"


def test_an_edited_macro_is_noticed(workspace: CommandLine) -> None:
    macro = 'def two(name):\n    native.genrule(name = name, outs = [name + ".txt"], cmd = "echo {} > $@")\n'
    workspace.put("rules.bzl", macro.format("one"))
    workspace.put("BUILD.models", 'load(":rules.bzl", "two")\ntwo(name = "x")\n')
    workspace.build()
    workspace.put("rules.bzl", macro.format("two"))
    assert workspace.build().executed() == {"//:x"}
    assert workspace.out("x.txt") == "two\n"


def test_an_edit_within_the_same_clock_tick_is_noticed(chain: CommandLine) -> None:
    chain.build()
    for number in range(5):
        chain.put("title.txt", f"same length {number}\n")
        chain.build()
        assert chain.out("report.txt").endswith(f"same length {number}\n")


def test_explain_names_the_file_that_changed(chain: CommandLine) -> None:
    chain.build()
    chain.put("title.txt", "other\n")
    result = chain.run("explain", "//:report")
    assert result.exit_code == 0
    assert "would run" in result.stdout
    assert "title.txt" in result.stdout
    assert "command" in result.stdout
    chain.build()
    after = chain.run("explain", "//:report").stdout
    assert "title.txt" in after
    assert "up to date" in after

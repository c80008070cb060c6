"""What a person sees when something is wrong: exit codes, places, no tracebacks, nothing cached."""

import json
import shutil
import subprocess

import pytest

from tests.command_line import CommandLine


def test_a_failed_action_shows_its_log_and_is_not_cached(workspace: CommandLine) -> None:
    build = 'genrule(name = "bad", srcs = ["in.txt"], outs = ["bad.txt"], cmd = "echo the reason; exit 3")'
    workspace.put("BUILD.models", build)
    workspace.put("in.txt", "")
    for _ in range(2):
        result = workspace.build(expect=1)
        assert result.finished["failed"] == 1
        assert "the reason" in result.stderr
        assert "code 3" in result.stderr
        assert "whole log" in result.stderr
    assert "the reason" in workspace.run("log", "//:bad").stdout


def test_keep_going_builds_what_errors_of_loading_leave(workspace: CommandLine) -> None:
    workspace.put("BUILD.models", 'genrule(name = "a", outs = ["a"], cmd = "echo > $@", nope = 1)\n')
    workspace.put(
        "p/BUILD.models",
        'genrule(name = "b", outs = ["b"], cmd = "echo > $@")\n'
        'genrule(name = "c", srcs = ["//:a"], outs = ["c"], cmd = "echo > $@")\n'
        'genrule(name = "d", srcs = [":c"], outs = ["d"], cmd = "echo > $@")\n',
    )
    assert workspace.run("build", "//...").exit_code == 2
    for _ in range(2):  # What has errors is never taken for up to date.
        result = workspace.build("-k", "--json", "//...", expect=1)
        assert "failed: 1 of 3 targets built" in result.stderr
        assert result.stderr.count("`genrule` has no attribute `nope`") == 1
        document = json.loads(result.stdout)
        assert "has no attribute `nope`" in document["error"]
        assert document["exit_code"] == 1
        assert document["skipped"] == result.finished["skipped"] == ["//p:c", "//p:d"]
        assert [t["label"] for t in document["targets"] if t["built"]] == ["//p:b"]
    workspace.put(
        "BUILD.models", 'genrule(name = "a", outs = ["a"], cmd = "echo > $@", visibility = ["//p:__pkg__"])\n'
    )
    workspace.build("-k", "//...")
    none_left = workspace.run("build", "-k", "//:none", "//q:x")
    assert none_left.exit_code == 2
    assert "there is no target `//:none`" in none_left.stderr


def test_keep_going_builds_what_errors_of_analysis_leave(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'constraint_setting(name = "board")\n'
        'constraint_value(name = "small", constraint_setting = ":board")\n'
        'constraint_value(name = "large", constraint_setting = ":board")\n'
        'platform(name = "device", constraint_values = [":small"])\n'
        'config_setting(name = "is_large", constraint_values = [":large"])\n'
        'genrule(name = "wrong", outs = ["w", "v"], cmd = "echo > $@")\n'
        'genrule(name = "after", srcs = [":v"], outs = ["a"], cmd = "echo > $@")\n'
        'genrule(name = "last", srcs = [":after"], outs = ["l"], cmd = "echo > $@")\n'
        'genrule(name = "no_branch", srcs = select({":is_large": []}), outs = ["n"], cmd = "echo > $@")\n'
        'genrule(name = "after_branch", srcs = [":n"], outs = ["ab"], cmd = "echo > $@")\n'
        'genrule(name = "other", outs = ["o"], cmd = "echo > $@", target_compatible_with = [":large"])\n'
        'genrule(name = "good", outs = ["g"], cmd = "echo > $@")\n',
    )
    flags = ("--json", "--platform", "//:device", "//...", "//:other")
    assert workspace.run("build", *flags).exit_code == 2
    gone = {f"//:{name}" for name in ("wrong", "after", "last", "no_branch", "after_branch", "other")}
    for _ in range(2):  # What has errors is never taken for up to date.
        result = workspace.build("-k", *flags, expect=1)
        assert result.stderr.count("error: `//:wrong`: `$@` needs exactly one output") == 1
        assert result.stderr.count("error: no condition of this `select`") == 1
        assert result.stderr.count("error: `//:other` cannot be built for `//:device`") == 1
        assert result.stderr.count("error: ") == 3
        assert gone <= set(json.loads(result.stdout)["skipped"]) == set(result.finished["skipped"])
        assert workspace.out("g") == "\n"
    only = workspace.run("build", "-k", "--platform", "//:device", "//:after", "//:no_branch")
    assert only.exit_code == 2
    assert "also at BUILD.models" in only.stderr
    workspace.put("BUILD.models", 'genrule(name = "good", outs = ["g"], cmd = "echo > $@")\n')
    workspace.build("-k", "//...")


def test_keep_going_builds_the_rest(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "bad", outs = ["bad.txt"], cmd = "exit 1")\n'
        'genrule(name = "needs_bad", srcs = [":bad"], outs = ["n.txt"], cmd = "cat $< > $@")\n'
        'genrule(name = "good", outs = ["good.txt"], cmd = "echo ok > $@")\n'
        'genrule(name = "after_good", srcs = [":good"], outs = ["ag.txt"], cmd = "cat $< > $@")\n',
    )
    result = workspace.build("-k", "//...", expect=1)
    assert result.executed() == {"//:good", "//:after_good"}
    assert set(result.finished["skipped"]) == {"//:bad", "//:needs_bad"}
    assert workspace.out("ag.txt") == "ok\n"


def test_what_the_build_did_not_come_to_is_told_apart(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "bad", outs = ["bad.txt"], cmd = "exit 3")\n'
        'genrule(name = "needs_bad", srcs = [":bad"], outs = ["n.txt"], cmd = "cat $< > $@")\n'
        'genrule(name = "slow", outs = ["slow.txt"], cmd = "sleep 1; echo ok > $@")\n'
        'genrule(name = "after_slow", srcs = [":slow"], outs = ["s.txt"], cmd = "cat $< > $@")\n',
    )
    result = workspace.build("-j", "2", "//...", expect=1)
    assert result.finished["skipped"] == ["//:bad", "//:needs_bad", "//:after_slow"]
    assert result.finished["unreached"] == ["//:after_slow"]
    assert "not built //:needs_bad: something it needs failed" in result.stderr
    assert "not reached //:after_slow: `--keep-going` builds on after a failure" in result.stderr
    assert workspace.build("-k", "//...", expect=1).finished["unreached"] == []


def test_a_log_with_progress_bars_and_control_characters(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "t", outs = ["t.txt"], cmd = "printf \'one\\\\r\\\\033[2Jtwo\\\\000\\\\n\'; exit 3")\n',
    )
    assert "   = ^[[2Jtwo^@\n" in workspace.build(expect=1).stderr


@pytest.mark.parametrize(
    ("cmd", "message"),
    [
        ("true", "was not created"),
        ("echo > $@; echo > $(@D)/stray.txt", "undeclared output"),
        ("mkdir $@", "is a directory"),
        ("ln -s /etc/hostname $@", "symlink out of the action's directory"),
        ("echo > $@; echo changed >> in.txt", "tried to write to its input `modelbuild-out/first.txt`"),
    ],
)
def test_what_an_action_must_not_do(workspace: CommandLine, cmd: str, message: str) -> None:
    workspace.put(
        "BUILD.models",
        f'genrule(name = "first", outs = ["first.txt"], cmd = "echo 1 > $@")\n'
        f'genrule(name = "t", srcs = [":first"], outs = ["t.txt"], cmd = """{cmd.replace("in.txt", "$<")}""")\n',
    )
    result = workspace.build(expect=1)
    assert message in result.stderr
    assert "--> BUILD.models:2" in result.stderr
    workspace.build("//:first")
    assert workspace.out("first.txt") == "1\n"


def test_an_action_sees_its_declared_inputs_only(workspace: CommandLine) -> None:
    workspace.put("secret.txt", "secret\n")
    workspace.put("BUILD.models", 'genrule(name = "t", outs = ["t.txt"], cmd = "cat secret.txt > $@")')
    assert "No such file" in workspace.build(expect=1).stderr


def test_an_action_has_no_network_and_no_environment(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "net", outs = ["net.txt"], cmd = "cat /proc/net/dev | grep -c : > $@")\n'
        'genrule(name = "env", outs = ["env.txt"], cmd = "env | grep -c SECRET > $@ || true")\n',
    )
    result = workspace.run("build", "//...", SECRET="1")
    assert result.exit_code == 0, result.stderr
    assert workspace.out("net.txt") == "1\n"  # The loopback device, which is down.
    assert workspace.out("env.txt") == "0\n"


@pytest.mark.parametrize(
    ("build", "line", "said"),
    [
        ('genrule(name = "x", outs = ["o"], comand = "y")', 1, "did you mean `cmd`"),
        ('\n\ngenrul(name = "x")', 3, "genrule"),
        ('genrule(name = "x", outs = ["o"], cmd = 3)', 1, "cmd"),
        ('genrule(name = "x", srcs = [":nothing"], outs = ["o"], cmd = "y")', 1, "nothing"),
        (
            'filegroup(name = "a", srcs = [":b"])\nfilegroup(name = "b", srcs = [":a"])',
            1,
            "depends on itself",
        ),
        ("x = [i for i in range(10**12)]", 1, ""),
        ('y = "a" * 100000000000', 1, ""),
        ("def f():\n    pass", 1, ""),
    ],
)
def test_a_wrong_build_file_exits_2_and_names_the_line(
    workspace: CommandLine, build: str, line: int, said: str
) -> None:
    workspace.put("BUILD.models", build)
    result = workspace.run("build", "//...")
    assert result.exit_code == 2, result.stderr
    assert f"BUILD.models:{line}" in result.stderr
    assert said in result.stderr
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("change", "exit_code", "message"),
    [
        ("ln -s in.txt in.txt", 1, "source `in.txt` cannot be read: Too many levels of symbolic links"),
        ("mkfifo in.txt", 1, "source `in.txt` is neither a file nor a directory"),
        ("ln -s /dev/zero in.txt", 1, "source `in.txt` is neither a file nor a directory"),
        ("mkdir in.txt", 1, "source `in.txt` is a directory"),
    ],
)
def test_a_source_that_became_something_else(
    chain: CommandLine, change: str, exit_code: int, message: str
) -> None:
    chain.build()
    (chain.root / "in.txt").unlink()
    subprocess.run(change, shell=True, cwd=chain.root, check=True)
    assert message in chain.build(expect=exit_code).stderr
    shutil.rmtree(chain.root / "modelbuild-out")
    explained = chain.run("explain", "//:upper")
    assert explained.exit_code in (1, 2), explained.stderr


def test_names_that_no_file_can_have(workspace: CommandLine) -> None:
    workspace.put("BUILD.models", 'genrule(name = "t", outs = ["o" * 256], cmd = "echo > $@")\n')
    assert "is too long for a file" in workspace.build(expect=2).stderr
    workspace.put(
        "BUILD.models", 'genrule(name = "t", outs = ["x"], srcs = ["i" * 256], cmd = "echo > $@")\n'
    )
    assert "there is no target `//:iiii" in workspace.build(expect=2).stderr


def test_undefined_targets_and_patterns(chain: CommandLine) -> None:
    result = chain.run("build", "//:uper")
    assert result.exit_code == 2
    assert "did you mean" in result.stderr
    assert chain.run("build", "//no/such:thing").exit_code == 2
    assert chain.run("build", "--no-such-flag").exit_code == 2
    assert chain.run("build", "//...", "-//:report").exit_code == 0
    assert not (chain.root / "modelbuild-out" / "report.txt").exists()


def test_outside_a_workspace(chain: CommandLine) -> None:
    lost = CommandLine(chain.root.parent)
    result = lost.run("build", "//...")
    assert result.exit_code == 2
    assert "modelbuild.toml" in result.stderr


def test_an_output_directory_in_the_way(chain: CommandLine) -> None:
    chain.put("modelbuild-out", "a file of somebody's\n")
    result = chain.run("build", "//...")
    assert result.exit_code == 4
    assert (chain.root / "modelbuild-out").read_text() == "a file of somebody's\n"


def test_an_output_inside_another_is_refused(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "one", outs = ["a"], cmd = "echo > $@")\n'
        'genrule(name = "two", outs = ["a/x"], cmd = "echo > $@")\n',
    )
    result = workspace.run("build", "//...")
    assert result.exit_code == 2
    assert "a/x" in result.stderr
    assert "BUILD.models:2" in result.stderr


def test_a_mistake_in_a_rule_is_told_with_its_place(workspace: CommandLine) -> None:
    rule = (
        "from modelbuild.api import Rule\n\n\nclass Broken(Rule):\n"
        "    def analyze(self, ctx):\n        return [1 / 0]\n"
    )
    workspace.put("rules/mine/rule.py", rule)
    workspace.put("rules/mine/BUILD.models", "")
    workspace.put("BUILD.models", 'load("//rules/mine:rule.py", "broken")\nbroken(name = "x")\n')
    result = workspace.run("build", "//...")
    assert result.exit_code == 2, result.stderr
    assert "ZeroDivisionError" in result.stderr
    assert "rule.py:6" in result.stderr
    assert "BUILD.models:2" in result.stderr


def test_a_cache_that_is_a_file(chain: CommandLine) -> None:
    result = chain.run("build", "--cache-dir", "in.txt", "//...")
    assert result.exit_code == 4
    assert "in.txt" in result.stderr


def test_a_compatibility_that_nothing_checks_is_refused(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "t", outs = ["t"], cmd = "echo > $@", target_compatible_with = ["//:aarch64"])',
    )
    result = workspace.run("build", "//...")
    assert result.exit_code == 2
    assert "target_compatible_with" in result.stderr


def test_a_report_that_cannot_be_written(chain: CommandLine) -> None:
    for flag in ("--events", "--profile"):
        result = chain.run("build", "//...", flag, "/dev/full")
        assert result.exit_code == 4
        assert result.stderr.endswith("error: `/dev/full` cannot be written\n   = No space left on device\n")


def test_a_name_that_is_no_text_reaches_events_and_json(workspace: CommandLine) -> None:
    workspace.put(
        "BUILD.models",
        'genrule(name = "t", outs = ["t.txt"], cmd = "echo > $@; touch $(@D)/$$(printf \'\\\\377\')stray")\n',
    )
    result = workspace.build("//...", "--json", expect=1)
    (failure,) = json.loads(result.stdout)["failures"]
    assert "undeclared output `modelbuild-out/\udcffstray`" in failure["error"]
    (event,) = [each for each in result.events if each["event"] == "action_finished"]
    assert event["error"] == failure["error"]


@pytest.mark.parametrize("locale", ["xx_XX.UTF-8", "C"])
def test_names_are_utf8_whatever_the_locale(workspace: CommandLine, locale: str) -> None:
    workspace.put(
        "BUILD.models", 'genrule(name = "größe", outs = ["größe.txt"], cmd = "echo ü > $@; echo ä")\n'
    )
    ascii_only = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    built = workspace.run("build", "//:größe", **ascii_only)
    assert (built.exit_code, workspace.out("größe.txt")) == (0, "ü\n"), built.stderr
    assert "modelbuild-out/größe.txt" in built.stderr
    assert workspace.run("log", "//:größe", **ascii_only).stdout == "ä\n"
    assert workspace.run("query", "//...", **ascii_only).stdout == "//:größe\n"

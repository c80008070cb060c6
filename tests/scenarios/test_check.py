"""`build --check`: a rerun is compared with the result that stands."""

from tests.command_line import CommandLine


def test_a_deterministic_action_passes_and_is_run_again(chain: CommandLine) -> None:
    chain.build()
    result = chain.build("--check", "//...")
    assert result.finished["executed"] == 3
    assert chain.build().finished["executed"] == 0


def test_an_action_that_is_not_fails_and_its_first_result_stands(workspace: CommandLine) -> None:
    workspace.put("BUILD.models", 'genrule(name = "t", outs = ["t.txt"], cmd = "date +%s%N > $@")')
    workspace.build()
    first = workspace.out("t.txt")
    result = workspace.run("build", "--check", "//:t")
    assert result.exit_code == 1
    assert "gave another result" in result.stderr
    assert workspace.out("t.txt") == first
    assert workspace.build().finished["executed"] == 0
    assert workspace.out("t.txt") == first


def test_only_the_requested_targets_are_checked(chain: CommandLine) -> None:
    chain.build()
    assert chain.build("--check", "//:report").executed() == {"//:report"}


def test_with_an_empty_cache_it_runs_twice(workspace: CommandLine) -> None:
    workspace.put("BUILD.models", 'genrule(name = "t", outs = ["t.txt"], cmd = "date +%s%N > $@")')
    assert workspace.run("build", "--check", "//:t").exit_code == 1
    workspace.put("BUILD.models", 'genrule(name = "t", outs = ["t.txt"], cmd = "echo same > $@")')
    assert workspace.run("build", "--check", "//:t").exit_code == 0

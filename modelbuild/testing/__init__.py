"""For tests of rules, toolchains and tools. Public: the tests of modelbuild itself use nothing else.

def test_quantize_declares_one_action():
    runner = RuleRunner()
    runner.provide(":student", ModelInfo(...))
    target = runner.analyze(Quantize, name="int4", model=":student", bits=4)
    assert target.action.params["bits"] == 4


def test_a_board_without_room_is_refused():
    runner = RuleRunner()
    runner.provide(":model", ModelInfo(...))
    runner.platform("board", cpu="aarch64", os="linux", ram="32 KB")
    runner.toolchain("//toolchains:runtime", MyToolchainInfo("mine", ("mine:fp32",)))
    with pytest.raises(AnalysisError, match="too large"):
        runner.analyze("device_binary", model=":model", platform=":board")


def test_the_tool_doubles(tmp_path):
    made = run_tool(TOOL, tmp_path, inputs={"model": folder}, outputs=["binary"], params={"bits": 8})
    assert made["binary"].stat().st_size == 128
"""

from modelbuild.cache.memory import InMemoryActionCache, InMemoryBlobStore
from modelbuild.testing.action_runner import ActionRunner
from modelbuild.testing.fake_executor import FakeExecutor
from modelbuild.testing.golden import GOLDEN, assert_golden
from modelbuild.testing.rule_runner import RuleRunner
from modelbuild.testing.rule_target import RuleTarget
from modelbuild.testing.tool_call import run_tool

__all__ = [
    "GOLDEN",
    "ActionRunner",
    "FakeExecutor",
    "InMemoryActionCache",
    "InMemoryBlobStore",
    "RuleRunner",
    "RuleTarget",
    "assert_golden",
    "run_tool",
]

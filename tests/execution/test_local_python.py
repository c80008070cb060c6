"""Python tools, run for real in forked children."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelbuild.artifact import Artifact
from modelbuild.errors import ActionFailed, Interrupted
from modelbuild.execution.environment import ToolIdentities
from modelbuild.execution.executor import Progress
from modelbuild.execution.local import LocalExecutor

FILE = {"out/result": "file"}
TREE = {"out/model": "tree"}


def run(
    bench: Any,
    body: str,
    inputs: Any = (),
    outputs: Any = FILE,
    preload: tuple[str, ...] = (),
    **params: Any,
) -> Any:
    return bench.run(bench.prepare(bench.tool(body, preload=preload), inputs, outputs, **params))


def test_a_tool_gets_its_request(bench: Any) -> None:
    given = bench.blob("in/data", "hello")
    body = "request.outputs['result'].write_text(request.inputs['data'].read_text() + str(request.params['n']) + str(request.threads))"
    result = run(bench, body, (given,), n=3)
    assert bench.text(result.outputs["out/result"]) == "hello31"


def test_paths_are_relative_so_that_no_output_depends_on_the_cache(bench: Any) -> None:
    given = bench.blob("in/data", "hello")
    result = run(bench, "request.outputs['result'].write_text(str(request.inputs['data']))", (given,))
    assert bench.text(result.outputs["out/result"]) == "in/data"


def test_a_tree(bench: Any) -> None:
    body = "d = request.outputs['model']\n(d / 'a').mkdir(parents=True)\n(d / 'a' / 'f').write_text('1')\n(d / 'g').write_text('2')"
    result = run(bench, body, outputs=TREE)
    assert bench.tree(result.outputs["out/model"]) == {"a/f": "1", "g": "2"}


def test_runs_do_not_see_each_other(bench: Any) -> None:
    tool = bench.tool(
        "import builtins\nassert not hasattr(builtins, 'mark')\nbuiltins.mark = 1\nrequest.outputs['result'].touch()"
    )
    for _ in range(2):
        bench.run(bench.prepare(tool, (), FILE))


def test_hashes_and_random_numbers_repeat(bench: Any) -> None:
    tool = bench.tool(
        "import random\nrequest.outputs['result'].write_text(f'{hash(\"x\")} {random.random()}')"
    )
    first, second = (bench.run(bench.prepare(tool, (), FILE)) for _ in range(2))
    assert first.outputs == second.outputs


def test_a_preloaded_module_is_there_before_the_tool_starts(bench: Any) -> None:
    result = run(
        bench, "request.outputs['result'].write_text(str('decimal' in sys.modules))", preload=("decimal",)
    )
    assert bench.text(result.outputs["out/result"]) == "True"


def test_a_module_that_cannot_be_preloaded_is_a_warning(bench: Any) -> None:
    run(bench, "request.outputs['result'].touch()", preload=("no_such_module",))
    assert any("no_such_module" in each for each in bench.warnings)


def test_there_is_no_program_on_path(bench: Any) -> None:
    with pytest.raises(ActionFailed, match="exited with code 1"):
        run(bench, "import subprocess\nsubprocess.run(['true'], check=True)")


def test_what_a_tool_says_why_it_fails_is_the_message(bench: Any) -> None:
    body = "from modelbuild.toolkit.request import ToolError\nprint('loading')\nraise ToolError('no such split `x`', hint='add it')"
    with pytest.raises(ActionFailed) as caught:
        run(bench, body)
    assert caught.value.message == "`//pkg:it` failed: no such split `x`"
    assert caught.value.hint == "add it"
    said = str(caught.value)
    assert said.count("no such split") == said.count("add it") == said.count("loading") == 1


def test_all_lines_of_what_a_tool_says_are_told_once(bench: Any) -> None:
    body = "from modelbuild.toolkit.request import ToolError\nraise ToolError('first line\\nsecond line')"
    with pytest.raises(ActionFailed) as caught:
        run(bench, body)
    assert caught.value.message == "`//pkg:it` failed: first line"
    assert str(caught.value).count("second line") == 1


def test_a_tool_that_wants_the_network_is_told_that_there_is_none(bench: Any) -> None:
    with pytest.raises(ActionFailed) as caught:
        run(bench, "import socket\nsocket.create_connection(('example.org', 80))")
    assert caught.value.hint == "actions have no network: fetch it before, and make it an input"


def test_a_missing_output_has_its_declared_path(bench: Any) -> None:
    prepared = bench.prepare(bench.tool("pass"), (), FILE)
    action = replace(prepared.action, outputs={"out/result": Artifact("pkg/it/result.json", "file")})
    with pytest.raises(ActionFailed, match=r"output `modelbuild-out/pkg/it/result.json` was not created"):
        bench.run(replace(prepared, action=action))


def test_a_bug_in_a_tool_shows_its_own_frames_only(bench: Any) -> None:
    with pytest.raises(ActionFailed) as caught:
        run(bench, "1 / 0")
    text = "\n".join(caught.value.notes)
    assert "ZeroDivisionError" in text
    assert "tool.py" in text
    assert "tool_process" not in text


def test_sys_exit_is_its_code(bench: Any) -> None:
    with pytest.raises(ActionFailed, match="code 5"):
        run(bench, "sys.exit(5)")
    result = run(bench, "request.outputs['result'].touch()\nsys.exit()")
    assert result.outputs


def test_output_is_flushed_like_at_a_normal_exit(bench: Any) -> None:
    body = "global kept\nkept = open(request.outputs['result'], 'w')\nkept.write('all of it')\nimport atexit\natexit.register(lambda: kept.write('!'))"
    assert bench.text(run(bench, body).outputs["out/result"]) == "all of it!"


def test_threads_are_waited_for(bench: Any) -> None:
    body = "import threading\ndef late():\n    time.sleep(0.2)\n    request.outputs['result'].write_text('late')\nthreading.Thread(target=late).start()"
    assert bench.text(run(bench, body).outputs["out/result"]) == "late"


def test_a_crash_is_named(bench: Any) -> None:
    with pytest.raises(ActionFailed, match="SIGSEGV"):
        run(bench, "import ctypes\nctypes.string_at(0)")


def test_undeclared_outputs_anywhere_are_errors(bench: Any) -> None:
    body = "request.outputs['result'].touch()\nopen('out/extra', 'w').close()\nopen('beside', 'w').close()"
    with pytest.raises(ActionFailed) as caught:
        run(bench, body)
    assert "undeclared output `beside`" in caught.value.message
    assert "undeclared output `out/extra`" in caught.value.notes


def test_replacing_an_input_is_an_error(bench: Any) -> None:
    given = bench.blob("in/data", "hello")
    body = "request.outputs['result'].touch()\nos.unlink('in/data')\nopen('in/data', 'w').close()"
    with pytest.raises(ActionFailed, match="in the place of an input"):
        run(bench, body, (given,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt"])
def test_pickled_weights_are_refused(bench: Any, name: str) -> None:
    body = f"import pickle\nd = request.outputs['model']\nd.mkdir()\n(d / '{name}').write_bytes(pickle.dumps([1]))"
    with pytest.raises(ActionFailed, match=f"`{name}` is a pickle"):
        run(bench, body, outputs=TREE)


def test_pickles_in_zip_archives_are_refused(bench: Any) -> None:
    body = "import zipfile\nd = request.outputs['model']\nd.mkdir()\nwith zipfile.ZipFile(d / 'm.pt', 'w') as z:\n    z.writestr('m/data.pkl', b'')"
    with pytest.raises(ActionFailed, match="is a pickle"):
        run(bench, body, outputs=TREE)


def test_a_binary_that_is_no_pickle_is_fine(bench: Any) -> None:
    body = "d = request.outputs['model']\nd.mkdir()\n(d / 'x.bin').write_bytes(bytes(range(100)))"
    assert run(bench, body, outputs=TREE).outputs


def test_progress_arrives(bench: Any) -> None:
    body = "from modelbuild.toolkit.progress import report\nreport(1, 2, loss=0.5)\nreport(2, 2, 'lines', loss=0.25)\nrequest.outputs['result'].touch()"
    run(bench, body)
    assert bench.progress == [
        Progress(1, 2, "steps", {"loss": 0.5}),
        Progress(2, 2, "lines", {"loss": 0.25}),
    ]


def test_an_edit_within_a_second_runs_the_new_code(bench: Any) -> None:
    tool = bench.tool("import part\nrequest.outputs['result'].write_text(part.NAME)")
    part = tool.source.parent / "part.py"
    said = []
    for name in ("a", "b"):
        part.write_text(f"NAME = '{name}'\n")
        os.utime(part, (1_000_000_000, 1_000_000_000))
        said.append(bench.text(bench.run(bench.prepare(tool, (), FILE)).outputs["out/result"]))
    assert said == ["a", "b"]
    assert not (tool.source.parent / "__pycache__").exists()


def test_scratch_is_kept_on_failure_and_removed_on_success(bench: Any) -> None:
    scratch = bench.root / "cache" / "scratch" / "key"
    body = "mark = request.scratch / 'mark'\nif not mark.exists():\n    mark.touch()\n    sys.exit(1)\nrequest.outputs['result'].touch()"
    tool = bench.tool(body)
    with pytest.raises(ActionFailed):
        bench.run(bench.prepare(tool, (), FILE), str(scratch))
    assert (scratch / "mark").exists()
    bench.run(bench.prepare(tool, (), FILE), str(scratch))
    assert not scratch.exists()


def test_cancel(bench: Any) -> None:
    started = bench.root / "started"
    prepared = bench.prepare(bench.tool(f"open({str(started)!r}, 'w').close()\ntime.sleep(60)"), (), FILE)

    def cancel() -> None:
        while not started.exists():
            time.sleep(0.01)
        bench.cancel.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        bench.run(prepared)
    thread.join()


def test_memory_of_the_child_is_measured(bench: Any) -> None:
    result = run(bench, "x = bytearray(200_000_000)\nrequest.outputs['result'].touch()")
    assert result.peak_rss_bytes > 200_000_000


def test_a_tool_that_changes_while_it_runs_is_found_out(bench: Any, tmp_path: Path) -> None:
    tool = bench.tool("open(__file__, 'a').write('# edited')\nrequest.outputs['result'].touch()")
    identities = ToolIdentities(site_packages=[])
    identities.identity(tool, {})
    with LocalExecutor(str(tmp_path / "cache"), bench.blobs, identities=identities) as executor:
        prepared = bench.prepare(tool, (), FILE)
        with pytest.raises(ActionFailed, match="the tool of `//pkg:it` changed"):
            executor.execute(prepared, bench.context(prepared))


def test_a_worker_that_died_is_replaced(bench: Any) -> None:
    tool = bench.tool("request.outputs['result'].write_text(str(os.getppid()))")
    worker = int(bench.text(bench.run(bench.prepare(tool, (), FILE)).outputs["out/result"]))
    os.kill(worker, 9)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            again = bench.run(bench.prepare(tool, (), FILE))
        except ActionFailed:
            continue  # The worker died under this one.
        assert int(bench.text(again.outputs["out/result"])) != worker
        return
    pytest.fail("no new worker")


@pytest.mark.parametrize("preload", [(), ("numpy",)])
def test_unseeded_libraries_repeat_whether_preloaded_or_not(bench: Any, preload: tuple[str, ...]) -> None:
    body = "import numpy\nrequest.outputs['result'].write_text(str(numpy.random.rand()))"
    result = run(bench, body, preload=preload)
    assert bench.text(result.outputs["out/result"]) == "0.5488135039273248"

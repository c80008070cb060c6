"""Shell actions, run for real."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from modelbuild.cache.blob_store import BlobMissing
from modelbuild.errors import ActionFailed, EnvironmentFailure, Interrupted
from modelbuild.execution.executor import ResolvedInput
from modelbuild.tool import ShellTool
from modelbuild.tree import Tree, TreeFile

OUT = "modelbuild-out/pkg/out"


def test_a_command_reads_its_inputs_and_writes_its_output(bench: Any) -> None:
    source = bench.source("pkg/a.txt", "hello\n")
    assert bench.shell(f"tr a-z A-Z < pkg/a.txt > {OUT}", source) == "HELLO\n"


def test_only_declared_inputs_are_there(bench: Any) -> None:
    source = bench.source("pkg/a.txt")
    bench.source("pkg/undeclared.txt")
    assert bench.shell(f"find . ! -type d | sort > /tmp/x.$$; mv /tmp/x.$$ {OUT}", source) == "./pkg/a.txt\n"


def test_data_is_a_read_only_file(bench: Any) -> None:
    output = bench.run(bench.prepare(ShellTool(), command=f"echo data > {OUT}")).outputs[OUT]
    assert not output.executable
    assert os.stat(bench.blobs.path(output.digest)).st_mode & 0o777 == 0o444


def test_what_the_rule_says_is_executable(bench: Any) -> None:
    action = bench.prepare(ShellTool(), command=f"echo data > {OUT}", executable=True)
    assert bench.run(action).outputs[OUT].executable


def test_a_script_is_executable_whatever_its_mode(bench: Any) -> None:
    result = bench.run(bench.prepare(ShellTool(), command=f"echo '#!/bin/sh' > {OUT}"))
    output = result.outputs[OUT]
    assert output.executable
    path = bench.blobs.path(output.digest, executable=True)
    assert os.stat(path).st_mode & 0o777 == 0o555


def test_the_output_is_renamed_into_the_cache(bench: Any) -> None:
    result = bench.run(bench.prepare(ShellTool(), command=f"echo x > {OUT}; stat -c %i {OUT}"))
    inode = int(bench.blobs.read(result.log).decode())
    assert os.stat(bench.blobs.path(result.outputs[OUT].digest)).st_ino == inode


def test_an_input_is_a_symlink_to_the_file_itself(bench: Any) -> None:
    source = bench.source("pkg/a.txt")
    assert bench.shell(f"readlink pkg/a.txt > {OUT}", source).strip() == source.path


def test_a_tree_is_directories_with_symlinks(bench: Any) -> None:
    digest = bench.blobs.put_bytes(b"deep")
    tree = Tree((TreeFile("a/b.txt", digest), TreeFile("c.txt", digest)))
    given = ResolvedInput("modelbuild-out/pkg/t", "tree", None, tree.digest, tree)
    text = bench.shell(
        f"cd modelbuild-out/pkg/t; find . -type l | sort > $OLDPWD/{OUT}; cat a/b.txt >> $OLDPWD/{OUT}", given
    )
    assert text == "./a/b.txt\n./c.txt\ndeep"


def test_a_source_directory_is_read_from_the_workspace(bench: Any) -> None:
    file = bench.source("pkg/data/x.txt", "x")
    tree = Tree((TreeFile("x.txt", file.digest),))
    given = ResolvedInput("pkg/data", "tree", os.path.dirname(file.path), tree.digest, tree)
    assert bench.shell(f"cat pkg/data/x.txt > {OUT}", given) == "x"


@pytest.mark.parametrize(
    "command",
    ["false; true", "false | cat", 'echo "$undefined_variable"', "exit 3"],
    ids=["errexit", "pipefail", "nounset", "exit"],
)
def test_bash_has_the_options_of_genrule(bench: Any, command: str) -> None:
    with pytest.raises(ActionFailed):
        bench.shell(f"touch {OUT}; {command}")


def test_the_environment_is_fixed(bench: Any) -> None:
    text = bench.shell(f"env | grep -v -e ^HOME= -e ^TMPDIR= -e ^PWD= -e ^_= | sort > {OUT}")
    assert dict(line.split("=", 1) for line in text.splitlines()) == {
        "PATH": "/usr/bin:/bin",
        "TZ": "UTC",
        "SHLVL": "1",
        "GOMP_SPINCOUNT": "1000",
        "PYTHONHASHSEED": "0",
        "SOURCE_DATE_EPOCH": "315532800",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def test_an_interpreter_that_cannot_be_started_is_named(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/dev/null")
    with pytest.raises(EnvironmentFailure, match="`/dev/null`, which runs actions, cannot be started"):
        bench.shell(f"touch {OUT}")


def test_no_signal_is_ignored(bench: Any) -> None:
    numbers = (signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        text = bench.shell(f"grep SigIgn /proc/self/status > {OUT}")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ignored = int(text.split()[1], 16)
    assert not [number for number in (*numbers, signal.SIGPIPE) if ignored & 1 << number - 1]


def test_home_and_tmpdir_are_the_actions_own(bench: Any) -> None:
    text = bench.shell(f'f=$(mktemp); echo "$f" > {OUT}; test "$HOME" = "$TMPDIR"; test -w "$HOME"')
    assert text.startswith(str(bench.root / "cache" / "work"))


def test_there_is_no_network(bench: Any) -> None:
    if any("network" in each for each in bench.warnings):
        pytest.skip("this machine allows no network namespaces")
    text = bench.shell(f"cat /proc/net/dev | sed 1,2d | cut -d: -f1 | xargs > {OUT}")
    assert text.strip() == "lo"


def test_a_long_command_runs(bench: Any) -> None:
    text = "x" * 200_000
    assert bench.shell(f"echo {text} | wc -c > {OUT}").strip() == "200001"


def test_a_failure_shows_the_end_of_the_log_and_where_it_is(bench: Any) -> None:
    prepared = bench.prepare(ShellTool(), command="for i in $(seq 50); do echo line $i; done; exit 7")
    with pytest.raises(ActionFailed) as caught:
        bench.run(prepared)
    assert caught.value.message == "`//pkg:it` failed: Test exited with code 7"
    log = bench.context(prepared).log_path
    assert caught.value.notes[-2:] == ("line 50", f"whole log: {log}")
    assert "line 30" not in caught.value.notes
    with open(log) as stream:
        assert stream.read().startswith("line 1\n")


def test_a_signal_is_named(bench: Any) -> None:
    with pytest.raises(ActionFailed, match=r"killed by signal 11 \(SIGSEGV\)"):
        bench.shell("kill -SEGV $$")


def test_a_missing_output_is_named(bench: Any) -> None:
    with pytest.raises(ActionFailed, match=f"output `{OUT}` was not created"):
        bench.shell("echo forgot")


def test_an_undeclared_output_is_named(bench: Any) -> None:
    with pytest.raises(ActionFailed, match="undeclared output `modelbuild-out/pkg/extra`"):
        bench.shell(f"touch {OUT} modelbuild-out/pkg/extra")


def test_other_files_are_dropped_as_in_bazel(bench: Any) -> None:
    assert bench.shell(f"touch beside; mkdir d; touch d/e; echo ok > {OUT}") == "ok\n"
    # and the next action does not see them, though it gets the same folders
    assert bench.shell(f"ls -A | xargs > {OUT}") == "modelbuild-out\n"


def test_a_directory_where_a_file_is_declared(bench: Any) -> None:
    with pytest.raises(ActionFailed, match="is declared as a file and is a directory"):
        bench.shell(f"mkdir {OUT}")


def test_a_file_where_a_tree_is_declared(bench: Any) -> None:
    with pytest.raises(ActionFailed, match="is declared as a directory and is a file"):
        bench.shell(f"touch {OUT}", outputs={OUT: "tree"})


def test_a_tree_output_with_links_inside_holds_their_content(bench: Any) -> None:
    source = bench.source("pkg/a.txt", "input")
    command = f"mkdir -p {OUT}/d; echo -n one > {OUT}/d/f; ln -s d/f {OUT}/l; ln -s $PWD/pkg/a.txt {OUT}/i; ln -s d {OUT}/e"
    result = bench.run(bench.prepare(ShellTool(), (source,), {OUT: "tree"}, command=command))
    assert bench.tree(result.outputs[OUT]) == {"d/f": "one", "e/f": "one", "i": "input", "l": "one"}


@pytest.mark.parametrize("target", ["/etc/passwd", "nowhere", "/proc/self/environ"])
def test_a_link_out_of_the_directory_is_refused(bench: Any, target: str) -> None:
    with pytest.raises(ActionFailed, match="symlink"):
        bench.shell(f"ln -s {target} {OUT}")


def test_a_link_to_itself_is_refused(bench: Any) -> None:
    with pytest.raises(ActionFailed, match=OUT):
        bench.shell(f"ln -s out {OUT}")


def test_a_tree_that_holds_itself_is_refused(bench: Any) -> None:
    with pytest.raises(ActionFailed, match="above it"):
        bench.shell(f"mkdir {OUT}; ln -s . {OUT}/loop", outputs={OUT: "tree"})


def test_a_fifo_is_refused(bench: Any) -> None:
    with pytest.raises(ActionFailed, match="neither a file nor a directory"):
        bench.shell(f"mkfifo {OUT}")


def test_an_output_with_another_name_is_copied(bench: Any) -> None:
    """Whoever has the other name could go on writing to it."""
    result = bench.run(bench.prepare(ShellTool(), command=f"echo mine > $TMPDIR/x; ln $TMPDIR/x {OUT}"))
    assert os.stat(bench.blobs.path(result.outputs[OUT].digest)).st_nlink == 1


def test_an_input_cannot_be_hardlinked_into_an_output(bench: Any) -> None:
    source = bench.source("pkg/a.txt", "mine\n")
    with pytest.raises(ActionFailed) as caught:
        bench.shell(f"ln -L pkg/a.txt {OUT}", source)
    assert os.stat(source.path).st_nlink == 1
    assert "copy" in str(caught.value.hint)


def test_a_source_that_changes_meanwhile_is_found_out(bench: Any) -> None:
    source = bench.source("pkg/a.txt", "old\n")
    timer = threading.Timer(0.3, lambda: bench.source("pkg/a.txt", "newer\n"))
    timer.start()
    with pytest.raises(ActionFailed, match=r"`pkg/a\.txt` changed while the build read it"):
        bench.shell(f"until grep newer pkg/a.txt; do sleep 0.02; done; touch {OUT}", source)
    timer.join()


def test_a_lost_blob_is_told_from_a_failure(bench: Any) -> None:
    given = bench.blob("pkg/in", "gone\n")
    os.unlink(given.path)
    with pytest.raises(BlobMissing):
        bench.shell(f"cat pkg/in > {OUT}", given)


def test_the_log_of_a_success_is_a_blob_and_no_file_stays(bench: Any) -> None:
    prepared = bench.prepare(ShellTool(), command=f"echo said; touch {OUT}")
    result = bench.run(prepared)
    assert bench.blobs.read(result.log) == b"said\n"
    silent = bench.prepare(ShellTool(), command=f"touch {OUT}")
    assert bench.run(silent).log is None
    assert not os.path.exists(bench.context(silent).log_path)


def test_directories_are_gone_after_success_and_failure(bench: Any) -> None:
    bench.shell(f"touch {OUT}")
    with pytest.raises(ActionFailed):
        bench.shell("exit 1")
    assert bench.running_directories == []


def test_the_directory_of_a_killed_build_gives_way(bench: Any) -> None:
    prepared = bench.prepare(ShellTool(), command=f"ls -A | xargs > {OUT}")
    stale = bench.root / "cache" / "work" / prepared.key / "root"
    stale.mkdir(parents=True)
    (stale / "left").touch()
    assert bench.text(bench.run(prepared).outputs[OUT]) == "modelbuild-out\n"


def test_cancel_ends_a_command_that_ignores_sigterm(bench: Any) -> None:
    started = bench.root / "started"
    prepared = bench.prepare(ShellTool(), command=f"trap '' TERM; touch {started}; sleep 60 & wait; sleep 60")

    def cancel() -> None:
        while not started.exists():
            time.sleep(0.01)
        bench.cancel.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        bench.run(prepared)
    thread.join()
    assert bench.running_directories == []


def test_processes_that_a_command_leaves_die_with_it(bench: Any) -> None:
    pids = bench.root / "pids"
    command = f"sleep 61 & echo $! >> {pids}; setsid sleep 62 & echo $! >> {pids}; (setsid bash -c 'cd /; echo $$ >> {pids}; sleep 63' &); sleep 0.2; touch {OUT}"
    bench.shell(command)
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 3
    assert [pid for pid in left if os.path.exists(f"/proc/{pid}")] == []


def test_another_actions_process_is_left_alone(bench: Any) -> None:
    """Two run at once; one leaves a process of its own session behind."""
    slow = bench.prepare(ShellTool(), command=f"setsid -w sleep 0.5; echo survived > {OUT}")
    quick = [bench.prepare(ShellTool(), command=f"setsid sleep 60 & touch {OUT}") for _ in range(3)]
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(bench.run, slow)
        for each in quick:
            pool.submit(bench.run, each).result()
        assert bench.text(first.result().outputs[OUT]) == "survived\n"


def test_many_at_once(bench: Any) -> None:
    commands = [bench.prepare(ShellTool(), command=f"echo {i} > {OUT}") for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(bench.run, commands))
    assert [bench.text(each.outputs[OUT]) for each in results] == [f"{i}\n" for i in range(40)]


def test_peak_memory_is_reported(bench: Any) -> None:
    result = bench.run(
        bench.prepare(ShellTool(), command=f"head -c 50000000 /dev/zero | sort > /dev/null; touch {OUT}")
    )
    assert 50_000_000 < result.peak_rss_bytes < 2_000_000_000
    assert result.duration_s > 0


def test_a_full_disk_in_the_tool_gets_a_hint(bench: Any) -> None:
    with pytest.raises(ActionFailed) as caught:
        bench.shell(f"echo x > /dev/full; touch {OUT}")
    assert "disk is full" in (caught.value.hint or "")

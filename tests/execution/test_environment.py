"""Tool identities: what changes them, and what does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from modelbuild.errors import AnalysisError, EnvironmentFailure
from modelbuild.execution.environment import ToolIdentities
from modelbuild.tool import Lock, PythonTool, ShellTool, TreeTool, WriteTool

LONG_AGO = (1_000_000_000, 1_000_000_000)


def install(site: Path, name: str, version: str, *requires: str, packages: tuple[str, ...] = ()) -> None:
    for old in site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {each}" for each in requires]
    (folder / "METADATA").write_text("\n".join(lines) + "\n\nRequires-Dist: a-lie-of-the-description\n")
    names = packages or (name.replace("-", "_"),)
    record = [f"{each}/__init__.py,sha256=x,1" for each in names]
    (folder / "RECORD").write_text("\n".join([*record, f"../../bin/{name},,", f"{folder.name}/METADATA,,"]))


@pytest.fixture
def site(tmp_path: Path) -> Any:
    site = tmp_path / "site-packages"
    install(
        site,
        "torch",
        "2.13.0",
        "numpy>=1",
        "triton; platform_system == 'Atlantis'",
        "opt-einsum; extra == 'opt'",
    )
    install(site, "numpy", "2.4.0")
    install(site, "opt_einsum", "3.0")
    install(site, "rich", "13.0", "pygments")
    install(site, "onnx", "1.23")
    install(site, "scikit_learn", "1.7", "numpy", packages=("sklearn",))
    return site


@pytest.fixture
def tool(tmp_path: Path) -> Any:
    folder = tmp_path / "tool"
    folder.mkdir()

    def write(text: str, *distributions: str, **others: str) -> PythonTool:
        (folder / "tool.py").write_text(text)
        for name, content in others.items():
            (folder / f"{name}.py").write_text(content)
        return PythonTool(folder / "tool.py", distributions)

    return write


def identify(site: Path, tool: Any, params: Any = None, cache: str | None = None, **options: Any) -> Any:
    return ToolIdentities(cache, site_packages=[str(site)], **options).identity(tool, params or {})


def test_a_version_of_the_closure_changes_it_and_another_does_not(site: Path, tool: Any) -> None:
    it = tool("import torch\n", "torch")
    before = identify(site, it)
    assert before.detail["distributions"] == {"numpy": "2.4.0", "torch": "2.13.0"}
    install(site, "rich", "14.0")
    install(site, "onnx", "2.0")
    assert identify(site, it).digest == before.digest
    install(site, "numpy", "2.5.0")
    assert identify(site, it).digest != before.digest


def test_extras_are_followed(site: Path, tool: Any) -> None:
    plain = identify(site, tool("import torch\n", "torch"))
    extra = identify(site, tool("import torch\n", "torch[opt]"))
    assert extra.detail["distributions"].keys() - plain.detail["distributions"].keys() == {"opt-einsum"}


def test_what_only_draws_on_terminals_is_left_out_unless_declared(site: Path, tool: Any) -> None:
    install(site, "transformers", "5.0", "rich", "numpy")
    assert "rich" not in identify(site, tool("import transformers\n", "transformers")).detail["distributions"]
    assert "rich" in identify(site, tool("import rich\n", "rich")).detail["distributions"]


def test_names_are_compared_as_pip_does(site: Path, tool: Any) -> None:
    detail = identify(site, tool("import sklearn\n", "Scikit.Learn")).detail
    assert detail["distributions"]["scikit-learn"] == "1.7"


def test_a_missing_distribution_is_the_environments_fault(site: Path, tool: Any) -> None:
    with pytest.raises(EnvironmentFailure, match="`tensorrt`, which is not installed") as caught:
        identify(site, tool("", "tensorrt"))
    assert caught.value.exit_code == 4
    assert caught.value.hint == "pip install 'modelbuild[models]'"


def test_an_undeclared_import_is_an_error_at_its_line(site: Path, tool: Any) -> None:
    it = tool("import os\n\ndef main(request):\n    from onnx import helper\n", "torch")
    with pytest.raises(AnalysisError, match="tool imports `onnx` but does not declare") as caught:
        identify(site, it)
    assert str(caught.value.location) == f"{it.source}:4"
    assert caught.value.hint == "add `onnx` to the tool's `distributions`"


def test_dependencies_of_declared_ones_count(site: Path, tool: Any) -> None:
    assert identify(site, tool("import numpy\n", "torch"))


def test_a_dynamic_import_of_a_constant_counts(site: Path, tool: Any) -> None:
    with pytest.raises(AnalysisError, match="`onnx`"):
        identify(site, tool("import importlib\nimportlib.import_module('onnx.helper')\n"))


def test_imports_for_type_checkers_do_not_count(site: Path, tool: Any) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnx\nelse:\n    import torch\n"
    assert identify(site, tool(text, "torch"))


def test_siblings_are_followed_and_others_are_not(site: Path, tool: Any) -> None:
    it = tool("import near\n", near="def f():\n    import far\n", far="X = 1\n", other="Y = 1\n")
    before = identify(site, it)
    assert {name for name in before.detail["files"] if "/" not in name} == {"tool.py", "near.py", "far.py"}
    folder = it.source.parent
    (folder / "other.py").write_text("Y = 2\n")
    assert identify(site, it).digest == before.digest
    (folder / "far.py").write_text("X = 2\n")
    assert identify(site, it).digest != before.digest


def test_packages_beside_the_tool_are_followed(site: Path, tool: Any) -> None:
    it = tool("from parts.first import x\nfrom parts import second\n")
    parts = it.source.parent / "parts"
    parts.mkdir()
    (parts / "__init__.py").write_text("")
    (parts / "first.py").write_text("from . import third\nfrom .fourth import y\n")
    for name in ("second", "third", "fourth", "fifth"):
        (parts / f"{name}.py").write_text("")
    files = {name for name in identify(site, it).detail["files"] if name.startswith("parts/")}
    assert files == {f"parts/{name}.py" for name in ("__init__", "first", "second", "third", "fourth")}


def test_toolkit_modules_are_followed(site: Path, tool: Any) -> None:
    progress = "modelbuild/toolkit/progress.py"
    assert (
        progress in identify(site, tool("from modelbuild.toolkit.progress import report\n")).detail["files"]
    )
    assert progress in identify(site, tool("from modelbuild.toolkit import progress\n")).detail["files"]
    assert progress in identify(site, tool("import modelbuild.toolkit.progress\n")).detail["files"]
    assert progress not in identify(site, tool("import json\n")).detail["files"]


def test_an_edit_of_a_toolkit_module_changes_only_tools_that_name_it(
    site: Path, tool: Any, tmp_path: Path
) -> None:
    import modelbuild.toolkit

    toolkit = tmp_path / "toolkit"
    shutil.copytree(os.path.dirname(modelbuild.toolkit.__file__), toolkit)
    uses = tool("from modelbuild.toolkit import progress\n")
    before = identify(site, uses, toolkit=str(toolkit))
    other = PythonTool(uses.source.parent / "other.py")
    other.source.write_text("")
    other_before = identify(site, other, toolkit=str(toolkit))
    (toolkit / "progress.py").write_text("def report(): ...\n")
    assert identify(site, uses, toolkit=str(toolkit)).digest != before.digest
    assert identify(site, other, toolkit=str(toolkit)).digest == other_before.digest


@pytest.mark.parametrize(
    "text",
    [
        "import modelbuild.cache.disk\n",
        "from modelbuild import errors\n",
        "from modelbuild.api import Rule\n",
        "import modelbuild\n",
    ],
)
def test_the_rest_of_modelbuild_is_refused(site: Path, tool: Any, text: str) -> None:
    with pytest.raises(AnalysisError, match="a tool imports `modelbuild"):
        identify(site, tool(text))


def test_a_tool_that_is_not_python_is_an_error_with_its_line(site: Path, tool: Any) -> None:
    with pytest.raises(AnalysisError, match="not Python") as caught:
        identify(site, tool("x = 1\ndef (:\n"))
    assert caught.value.location is not None
    assert caught.value.location.line == 2


def test_the_folder_of_a_tool_is_not_part_of_it(site: Path, tool: Any, tmp_path: Path) -> None:
    it = tool("import near\n", near="")
    moved = tmp_path / "elsewhere"
    shutil.copytree(it.source.parent, moved)
    assert identify(site, it).digest == identify(site, PythonTool(moved / "tool.py")).digest


def test_preload_is_speed_only(site: Path, tool: Any) -> None:
    it = tool("")
    assert identify(site, it).digest == identify(site, PythonTool(it.source, (), ("json",))).digest


def test_another_architecture_is_another_environment(site: Path, tool: Any) -> None:
    it = tool("")
    assert identify(site, it, machine="linux-a").digest != identify(site, it, machine="linux-b").digest


def age(*folders: Path) -> None:
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.utime(path, LONG_AGO)


def test_a_remembered_identity_reads_nothing(
    site: Path, tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = tool("import torch\nimport near\n", "torch", near="")
    age(site, it.source.parent)
    cache = tmp_path / "cache"
    cache.mkdir()
    first = ToolIdentities(str(cache), site_packages=[str(site)])
    before = first.identity(it, {})
    first.save()

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("modelbuild.execution.environment.read_tool_sources", refuse)
    monkeypatch.setattr("modelbuild.execution.environment.digest_file", refuse)
    again = identify(site, it, cache=str(cache))
    assert again == before


@pytest.mark.parametrize("what", ["tool", "near", "version", "new file beside"])
def test_a_remembered_identity_notices_changes(site: Path, tool: Any, tmp_path: Path, what: str) -> None:
    it = tool("import torch\nimport near\n", "torch", near="A = 1\n")
    folder = it.source.parent
    age(site, folder)
    cache = tmp_path / "cache"
    cache.mkdir()
    first = ToolIdentities(str(cache), site_packages=[str(site)])
    before = first.identity(it, {})
    first.save()
    if what == "tool":
        it.source.write_text("import torch\nimport near \n")
    elif what == "near":
        (folder / "near.py").write_text("A = 2\n")
    elif what == "version":
        install(site, "numpy", "9.9")
    else:
        (folder / "torch.py").write_text("")
    assert identify(site, it, cache=str(cache)).digest != before.digest


def test_facts_cover_what_the_identity_rests_on(site: Path, tool: Any) -> None:
    it = tool("import torch\nimport near\n", "torch", near="")
    facts = identify(site, it).facts
    folder = it.source.parent
    for path in (it.source, folder / "near.py", folder, site, site / "numpy-2.4.0.dist-info" / "METADATA"):
        assert str(path) in facts


def test_a_broken_memory_is_no_error(site: Path, tool: Any, tmp_path: Path) -> None:
    (tmp_path / "tool_identities.json").write_text("{")
    assert identify(site, tool(""), cache=str(tmp_path))


def test_a_command_is_bash_and_the_programs_it_names(site: Path) -> None:
    detail = identify(site, ShellTool(), {"command": "cat x | /usr/bin/sort > $(basename y)"}).detail
    assert set(detail["files"]) == {"/bin/bash", "/usr/bin/cat", "/usr/bin/sort", "/usr/bin/basename"}
    same = identify(site, ShellTool(), {"command": "sort z; basename cat"}).detail
    assert same == detail
    assert (
        identify(site, ShellTool(), {"command": "echo"}).digest
        != identify(site, ShellTool(), {"command": "cat"}).digest
    )


def test_built_in_tools_are_constants(site: Path) -> None:
    write, tree = identify(site, WriteTool(), {"content": "a"}), identify(site, TreeTool(), {})
    assert write.digest == identify(site, WriteTool(), {"content": "b"}).digest
    assert write.digest != tree.digest


def test_every_real_tool_of_this_repository_declares_what_it_imports() -> None:
    """Over the real environment: a rule family whose tool imports more than it says cannot run."""
    import modelbuild.rules

    identities = ToolIdentities()
    for path in sorted(Path(modelbuild.rules.__file__).parent.glob("*/tool.py")):
        try:
            identities.identity(PythonTool(path), {})
        except AnalysisError as error:
            assert "does not declare" in error.message, error  # noqa: PT017 - the declaration is in rule.py


def test_a_lock_stands_for_what_is_installed(site: Path, tool: Any, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("torch==2.13.0\nnumpy==2.4.0\n")
    source = tool("import torch\nimport anything\n").source
    it = PythonTool(source, lock=Lock(lock))
    before = identify(site, it)
    assert before.detail["lock"] == {"numpy": "2.4.0", "torch": "2.13.0"}
    assert "distributions" not in before.detail
    assert str(lock) in before.facts
    install(site, "numpy", "2.5.0")
    assert identify(site, it).digest == before.digest
    lock.write_text("# again\nnumpy==2.4.0\n\ntorch==2.13.0\n")
    assert identify(site, it).digest == before.digest
    lock.write_text("numpy==2.4.1\ntorch==2.13.0\n")
    assert identify(site, it).digest != before.digest


def test_packages_that_are_read_count_with_their_platform(site: Path, tool: Any, tmp_path: Path) -> None:
    lock = tmp_path / "runtime.lock"
    lock.write_text("tvm==1\n")
    source = tool("").source

    def digest(name: str, *arguments: str) -> str:
        it = PythonTool(source, packages=((name, Lock(lock, *arguments)),))
        return str(identify(site, it).digest)

    digests = [
        identify(site, PythonTool(source)).digest,
        digest("runtime"),
        digest("other"),
        digest("runtime", "aarch64-manylinux_2_28"),
        digest("runtime", "aarch64-manylinux_2_28", "3.12"),
    ]
    lock.write_text("tvm==2\n")
    digests.append(digest("runtime"))
    assert len(set(digests)) == len(digests)


def test_the_content_of_programs_counts(site: Path, tool: Any, tmp_path: Path) -> None:
    program, folder = tmp_path / "runner", tmp_path / "sysroot"
    program.write_text("one")
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "libc.so").write_text("one")
    (folder / "dangling").symlink_to("nowhere")
    it = PythonTool(tool("").source, programs=(str(program), f"{folder} (apt: libc6)"))
    before = identify(site, it)
    assert set(before.detail["programs"]) == {str(program), str(folder)}
    assert str(folder / "lib" / "libc.so") in before.facts
    (folder / "lib" / "libc.so").write_text("two")
    after = identify(site, it)
    assert before.detail["programs"][str(program)] == after.detail["programs"][str(program)]
    assert before.digest != after.digest
    program.write_text("two")
    assert identify(site, it).digest != after.digest


@pytest.mark.parametrize("entry", ["", "two words", "relative/path", "name (yum: package)"])
def test_what_names_no_program(site: Path, tool: Any, entry: str) -> None:
    with pytest.raises(AnalysisError, match="names no program"):
        identify(site, PythonTool(tool("").source, programs=(entry,)))


def test_a_lock_that_is_edited_while_its_tool_runs_is_noticed(site: Path, tool: Any, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text("numpy==2.4.0\n")
    it = PythonTool(tool("").source, lock=Lock(lock))
    identities = ToolIdentities(site_packages=[str(site)])
    identities.identity(it, {})
    assert identities.changed(it, {}) == []
    lock.write_text("numpy==2.4.10\n")
    assert identities.changed(it, {}) == [str(lock)]

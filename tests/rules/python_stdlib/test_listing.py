import sysconfig
from pathlib import Path

from modelbuild.rules.python_stdlib.listing import list_modules


def test_lists_sources_and_leaves_out_tests_packages_and_generated_files(tmp_path: Path) -> None:
    for name in (
        "abc.py",
        "json/decoder.py",
        "json/tests/test_decoder.py",
        "test/test_abc.py",
        "site-packages/torch/__init__.py",
        "__pycache__/abc.cpython-311.pyc",
        "config-3.11-x86_64-linux-gnu/python-config.py",
        "_sysconfigdata__linux_x86_64-linux-gnu.py",
        "lib-dynload/x.so",
        "LICENSE.txt",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list_modules(str(tmp_path))[0] == ["abc.py", "json/decoder.py"]


def test_this_interpreters_library_is_found() -> None:
    modules, _ = list_modules(sysconfig.get_path("stdlib"))
    assert len(modules) > 400
    assert "argparse.py" in modules
    assert "json/__init__.py" in modules
    assert not any("site-packages" in name or name.startswith("test/") for name in modules)

"""Where packages come from: settings, then uv's variables, then what pip is configured with."""

import os
from pathlib import Path

import pytest

from modelbuild.execution.package_source import package_source, pip_settings
from modelbuild.loading.workspace import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "PIP_FIND_LINKS",
        "PIP_CERT",
        "PIP_CONFIG_FILE",
        "UV_FIND_LINKS",
        "VIRTUAL_ENV",
        "SSL_CERT_FILE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    config = tmp_path / "config" / "pip"
    config.mkdir(parents=True)
    (config / "pip.conf").write_text(
        "[global]\nfind-links = /pip/wheels https://example.org/%/\ncert = /pip/ca.pem\n"
    )
    return tmp_path


def test_what_pip_is_configured_with_counts_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = package_source(Settings(), home, os.environ)
    assert source.find_links == ("/pip/wheels", "https://example.org/%/")
    assert source.environment["SSL_CERT_FILE"] == "/pip/ca.pem"
    assert not source.offline
    monkeypatch.setenv("UV_FIND_LINKS", "/uv/wheels")
    source = package_source(Settings(), home, os.environ)
    assert source.find_links == ()
    assert source.environment["UV_FIND_LINKS"] == "/uv/wheels"


def test_settings_count_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/mine.pem")
    source = package_source(Settings(find_links="wheels", offline=True), home, os.environ)
    assert source.find_links == (str(home / "wheels"),)
    assert source.offline
    assert source.environment["SSL_CERT_FILE"] == "/mine.pem"
    page = package_source(Settings(find_links="https://example.org/wheels/"), home, os.environ)
    assert page.find_links == ("https://example.org/wheels/",)


def test_pip_variables_count_before_pip_files(home: Path) -> None:
    variables = {"PIP_FIND_LINKS": "/variable", "XDG_CONFIG_HOME": str(home / "config")}
    assert pip_settings(variables) == {"find-links": "/variable", "cert": "/pip/ca.pem"}
    (home / "mine.conf").write_text("[install]\nfind-links = /mine\n")
    variables = {"PIP_CONFIG_FILE": str(home / "mine.conf"), "XDG_CONFIG_HOME": str(home / "config")}
    assert pip_settings(variables)["find-links"] == "/mine"
    assert pip_settings({"PIP_CONFIG_FILE": "/dev/null"}) == {}


def test_what_would_change_what_is_installed_is_left_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OVERRIDE", "/somewhere")
    monkeypatch.setenv("UV_PRERELEASE", "allow")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")
    environment = package_source(Settings(), home, os.environ).environment
    assert environment["HTTPS_PROXY"] == "http://proxy"
    assert not {"UV_OVERRIDE", "UV_PRERELEASE", "PATH"} & environment.keys()

"""PackageSource: where the packages of tool environments come from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelbuild.loading.workspace import Settings

_STARTS = ("UV_INDEX", "UV_HTTP_", "UV_CONCURRENT_", "UV_KEYRING_", "SSL_CERT_", "XDG_")
_NAMES = frozenset(
    {
        "HOME", "USER", "LOGNAME", "TMPDIR", "NETRC", "UV_CACHE_DIR", "UV_DEFAULT_INDEX",
        "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INSECURE_HOST", "UV_LINK_MODE", "UV_NATIVE_TLS",
        "UV_NO_INDEX", "UV_OFFLINE",
        "UV_SYSTEM_CERTS", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY",
        "NO_PROXY", "ALL_PROXY",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PackageSource:
    """Not part of any key: a lock says what a package is, this says where it is fetched.

    find_links: directories (absolute) and pages with wheels. offline: fetch nothing, use what is in them and
    in the installer's own cache. environment: variables that the installer may see: proxies, indexes.
    """

    find_links: tuple[str, ...] = ()
    offline: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def package_source(settings: Settings, root: Path, variables: Mapping[str, str]) -> PackageSource:
    """What `settings` say, and what this person's environment, `variables`, does.

    modelbuild.toml goes first, then uv's variables, then what pip is configured with.
    """
    pip = pip_settings(variables)
    handed_on = _installer_variables(variables)
    links: tuple[str, ...] = ()
    if settings.find_links:
        is_page = "://" in settings.find_links
        links = (settings.find_links if is_page else str(root / os.path.expanduser(settings.find_links)),)
    elif not handed_on.get("UV_FIND_LINKS"):  # Set and empty is what a Makefile makes of an unset one.
        links = tuple(pip.get("find-links", "").split())
    if "SSL_CERT_FILE" not in handed_on and pip.get("cert"):
        handed_on["SSL_CERT_FILE"] = pip["cert"]
    return PackageSource(links, settings.offline, handed_on)


def _installer_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Those environment variables of a person that decide where packages come from and how to reach them.

    What would change what is installed (UV_OVERRIDE, UV_PRERELEASE, ...) is left out: the lock says that.
    """
    return {name: value for name, value in variables.items() if name in _NAMES or name.startswith(_STARTS)}


def pip_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """`find-links` and `cert` as pip has them: files from the machine's to the person's, then PIP_ variables.

    https://pip.pypa.io/en/stable/topics/configuration/
    """
    from configparser import ConfigParser, Error  # noqa: PLC0415

    found: dict[str, str] = {}
    for path in _pip_files(variables):
        parser = ConfigParser(interpolation=None, strict=False)
        try:
            parser.read(path, encoding="utf-8")
        except (Error, OSError, UnicodeDecodeError):
            continue  # pip itself says what is wrong with its file.
        for section in ("global", "install"):
            for name in ("find-links", "cert"):
                if value := parser.get(section, name, fallback=""):
                    found[name] = value
    for name in ("find-links", "cert"):
        if stated := variables.get(f"PIP_{name.upper().replace('-', '_')}"):
            found[name] = stated
    return found


def _pip_files(variables: Mapping[str, str]) -> Iterator[str]:
    chosen = variables.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return
    for folder in variables.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"):
        yield f"{folder}/pip/pip.conf"
    yield "/etc/pip.conf"
    home = os.path.expanduser("~")
    yield f"{home}/.pip/pip.conf"
    yield f"{variables.get('XDG_CONFIG_HOME') or f'{home}/.config'}/pip/pip.conf"
    if "VIRTUAL_ENV" in variables:
        yield f"{variables['VIRTUAL_ENV']}/pip.conf"
    if chosen:
        yield chosen

"""Isolation: a worker leaves the network, and sees the workspace and the cache read-only.

Its children inherit both, so that an action pays for neither. File modes would not do: root writes through
them, and the files of a workspace are the user's own. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_SYS_MOUNT_SETATTR = 442
"""The same on every architecture; Linux 5.12."""
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_ATTR_RDONLY = 1
_ATTEMPTS = (
    _CLONE_NEWNET | _CLONE_NEWNS,
    _CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS,
    _CLONE_NEWNET,
    _CLONE_NEWUSER | _CLONE_NEWNET,
    _CLONE_NEWNS,
    _CLONE_NEWUSER | _CLONE_NEWNS,
)
"""Root needs no user namespace. A machine may permit some of it and not all."""


@dataclass(frozen=True, slots=True)
class Isolated:
    """network: why it can still be reached. files: why nothing is read-only. Empty: as it should be."""

    network: str
    files: str


class _MountAttributes(ctypes.Structure):
    """`struct mount_attr`."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def isolate(read_only: Sequence[str], writable: Sequence[str]) -> Isolated:
    """Cut this process off, as far as the machine permits. For a process with one thread.

    read_only: directories that can only be read from now on. writable: directories, inside of those or not,
    that can be written although. All are absolute and exist. From one to another a rename fails (EXDEV).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    entered, refusal = 0, 0
    for flags in _ATTEMPTS:
        if not read_only and flags & _CLONE_NEWNS:
            continue
        if libc.unshare(flags) == 0:
            entered = flags
            break
        refusal = refusal or ctypes.get_errno()
    if entered & _CLONE_NEWUSER:
        for name, content in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
                stream.write(content)
    network = files = os.strerror(refusal or errno.EPERM)
    if entered & _CLONE_NEWNET:
        network = ""
        _raise_loopback()
    if entered & _CLONE_NEWNS:
        try:
            _protect(libc, read_only, writable)
            files = ""
        except OSError as error:
            files = f"{error.filename}: {error.strerror}"
    return Isolated(network, files if read_only else "")


def _protect(libc: ctypes.CDLL, read_only: Sequence[str], writable: Sequence[str]) -> None:
    """Mount every directory on itself: what is mounted can be read-only. Outer ones first."""
    _mount(libc, None, "/", _MS_REC | _MS_PRIVATE)
    shut = sorted({os.path.realpath(path) for path in read_only})
    opened = sorted({os.path.realpath(path) for path in writable})
    for path in sorted({*shut, *opened}, key=len):
        _mount(libc, path, path, _MS_BIND | _MS_REC)
    for path in shut:
        _set_attributes(libc, path, _MountAttributes(attr_set=_ATTR_RDONLY), _AT_RECURSIVE)
    for path in opened:
        _set_attributes(libc, path, _MountAttributes(attr_clr=_ATTR_RDONLY), 0)


def _mount(libc: ctypes.CDLL, source: str | None, target: str, flags: int) -> None:
    encoded = os.fsencode(source) if source is not None else None
    if libc.mount(encoded, os.fsencode(target), None, ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _set_attributes(libc: ctypes.CDLL, path: str, attributes: _MountAttributes, flags: int) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    encoded, pointer = os.fsencode(path), ctypes.byref(attributes)
    if libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, encoded, flags, pointer, size) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def _raise_loopback() -> None:
    """Some libraries talk to themselves over 127.0.0.1."""
    set_flags, up = 0x8914, 0x1 | 0x40
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control,
    ):
        fcntl.ioctl(control, set_flags, struct.pack("16sh14x", b"lo", up))

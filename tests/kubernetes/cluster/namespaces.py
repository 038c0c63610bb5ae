"""Linux namespaces: system calls that Python 3.11 does not wrap, and the last step of every process of the cluster.

Run as a script (only the standard library is imported, so it starts in 15 ms) it becomes another program:

    namespaces.py enter PID [--with-parent] -- COMMAND ...   in the network and mount namespace of a process
    namespaces.py pod SPEC.json                              as one container of a pod: its network, mounts and file tree

A container sees the file tree of this machine, with the pod's volumes and /etc files mounted over it. Mount points that do
not exist here are made in memory, so nothing is ever written to the machine's own tree.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 1, 32, 4096, 16384, 1 << 18, 1 << 19
_MNT_DETACH, _PR_SET_PDEATHSIG, _AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 2, 1, -100, 0x8000, 1
# These two are numbered alike on every architecture since Linux 5.1; pivot_root is older and is not.
_SYS_MOUNT_SETATTR = 442
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Gives the calling thread new namespaces of the kinds in `flags`. OSError where the kernel refuses."""
    _checked(_libc.unshare(flags), "unshare")


def setns(path: str, kind: int) -> None:
    """Puts the calling thread into the namespace of `kind` behind `path`, such as /proc/7/ns/net."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(descriptor, kind), f"setns {path}")
    finally:
        os.close(descriptor)


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2); OSError names both ends."""
    arguments = [value.encode() or None for value in (source, target, kind)]
    _checked(_libc.mount(*arguments, ctypes.c_ulong(flags), options.encode() or None), f"mount {source} on {target}")


def die_with_parent() -> None:
    """Has the kernel kill this process as soon as the thread that started it is gone; survives exec."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def loopback_up() -> None:
    """Switches on `lo` in the calling thread's network namespace (SIOCSIFFLAGS with IFF_UP)."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anything:
        fcntl.ioctl(anything, 0x8914, struct.pack("16sh22x", b"lo", 1))


def become_root_of_a_user_namespace() -> None:
    """Without being root: a user namespace in which this user is root, which is what all else here needs."""
    user, group = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER)
    for name, content in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)


def enter(pid: int) -> None:
    """Puts this process into the network and mount namespace of `pid` (and its user namespace where that is another)."""
    directory = os.getcwd()
    base = f"/proc/{pid}/ns"
    if os.readlink(f"{base}/user") != os.readlink("/proc/self/ns/user"):
        setns(f"{base}/user", CLONE_NEWUSER)
    setns(f"{base}/net", CLONE_NEWNET)
    setns(f"{base}/mnt", CLONE_NEWNS)
    os.chdir(directory)


def _become_container(spec: dict[str, Any]) -> None:
    setns(spec["network"], CLONE_NEWNET)
    unshare(CLONE_NEWNS | CLONE_NEWUTS)
    socket.sethostname(spec["hostname"])
    mount("", "/", "", MS_REC | MS_PRIVATE)
    mounts = {
        os.path.join(os.path.realpath(os.path.dirname(m["target"])), os.path.basename(m["target"])): m for m in spec["mounts"]
    }
    _assemble_root(spec["root"], mounts, spec["keep"], read_only=spec["readOnlyRoot"])
    os.chdir(spec["directory"])
    os.execvpe(spec["command"][0], spec["command"], spec["environment"])


def _assemble_root(root: str, mounts: dict[str, dict[str, Any]], keep: list[str], *, read_only: bool) -> None:
    mount("tmpfs", root, "tmpfs", 0, "mode=755")
    missing = [target for target in mounts if not os.path.exists(target)]
    _mirror("/", root, missing)
    for target in sorted(mounts):  # parents before what is mounted inside them
        source = mounts[target]["source"]
        _make_mount_point(root + target, like=source)
        mount(source, root + target, "", MS_BIND | MS_REC)
    for path in keep:  # programs that a volume at, say, /tmp would hide
        if any(path.startswith(target + "/") for target in mounts):
            _make_mount_point(root + path, like=path)
            mount(path, root + path, "", MS_BIND | MS_REC)
    if read_only:
        _set_read_only(root)
        for target in mounts:
            if not mounts[target]["readOnly"]:
                _set_writable(root + target)
    for target in mounts:
        if mounts[target]["readOnly"]:
            _set_read_only(root + target)
    os.chdir(root)
    _checked(_libc.syscall(_SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount of the old root")


def _mirror(folder: str, copy: str, missing: list[str]) -> None:
    """Binds what is in `folder` into `copy`, entry by entry; a folder that lacks a mount point is mirrored in its turn."""
    for entry in os.scandir(folder):
        target = os.path.join(copy, entry.name)
        below = [path for path in missing if path.startswith(entry.path + "/")]
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
        elif below:
            os.mkdir(target)
            _mirror(entry.path, target, below)
        else:
            _make_mount_point(target, like=entry.path)
            mount(entry.path, target, "", MS_BIND | MS_REC)


def _make_mount_point(path: str, *, like: str) -> None:
    if os.path.lexists(path):
        return
    if os.path.isdir(like):
        os.makedirs(path)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def _set_read_only(path: str) -> None:
    _mount_attributes(path, struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0))


def _set_writable(path: str) -> None:
    _mount_attributes(path, struct.pack("QQQQ", 0, _MOUNT_ATTR_RDONLY, 0, 0))


def _mount_attributes(path: str, attributes: bytes) -> None:
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path.encode(), _AT_RECURSIVE, attributes, len(attributes))
    _checked(result, f"mount_setattr {path}")


def _main_enter(arguments: list[str]) -> None:
    split = arguments.index("--")
    if "--with-parent" in arguments[:split]:
        die_with_parent()
    enter(int(arguments[0]))
    os.execvp(arguments[split + 1], arguments[split + 1 :])


def _main_pod(arguments: list[str]) -> None:
    with open(arguments[0]) as file:
        spec = json.load(file)
    _become_container(spec)


def _main() -> None:
    commands: dict[str, Callable[[list[str]], None]] = {"enter": _main_enter, "pod": _main_pod}
    try:
        commands[sys.argv[1]](sys.argv[2:])
    except OSError as error:  # 126, as a shell says "found, but could not be run"
        print(error, file=sys.stderr)
        sys.exit(126)


if __name__ == "__main__":
    _main()

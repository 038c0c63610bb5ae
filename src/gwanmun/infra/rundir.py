"""The run directory of a folder of manifests: what must be found again by the next control plane of that folder.

It holds a lock (one control plane at a time), the state (which Envoy runs, started with what), the sockets and the log.
Only its owner can enter it: whoever can reach the sockets commands the proxy.

Deliberately absent: what the state means (`local`), and reading the environment (an argument).
"""

import contextlib
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec

from gwanmun.infra.processes import Process

_SOCKET_PATH_MAX = 103
"""Bytes in the path of a unix socket: 107 on Linux, 103 on macOS."""
_LONGEST_NAME = len("/hot_udp_parent_2684354559")


class RunDirError(Exception):
    """The directory cannot be used; the text says why and what to do."""


class AlreadyRunningError(RunDirError):
    """Another control plane serves this folder. `pid` is its process, 0 where it has not said; `stop_grace` is how many
    seconds it lets requests finish when it is told to end."""

    def __init__(self, folder: str, pid: int, stop_grace: float = 0) -> None:
        super().__init__(
            f"gwanmun already serves {folder} (process {pid or 'unknown'}); end that one first, with Ctrl-C or"
            f' "gwanmun down {folder}"'
        )
        self.pid = pid
        self.stop_grace = stop_grace


class EnvoyProcess(msgspec.Struct, frozen=True):
    """One Envoy of this run directory. `epoch` counts hot restarts since the last cold start."""

    process: Process
    epoch: int
    fingerprint: str
    version: str


class State(msgspec.Struct, frozen=True):
    """`envoys` by rising epoch: the last one serves, those before it are draining."""

    envoys: tuple[EnvoyProcess, ...] = ()


@dataclass(frozen=True, slots=True)
class RunDir:
    """`folder` is what is served from here, as the user may read it in a message."""

    path: Path
    folder: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def admin_socket(self) -> Path:
        return self.path / "admin.sock"

    @property
    def xds_socket(self) -> Path:
        return self.path / "xds.sock"

    @property
    def hot_restart_socket(self) -> Path:
        """The beginning of the paths of the sockets that an Envoy and its successor talk through."""
        return self.path / "hot"

    @property
    def log(self) -> Path:
        return self.path / "envoy.log"

    def read_state(self) -> State:
        """What was written last; an empty one if there is none, or none that can be read."""
        try:
            return msgspec.json.decode((self.path / "state.json").read_bytes(), type=State)
        except (FileNotFoundError, msgspec.DecodeError):
            return State()

    def write_state(self, state: State) -> None:
        self.write("state.json", msgspec.json.encode(state))

    def read(self, name: str) -> bytes | None:
        """A file that was written here before; None if there is none."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> Path:
        """Put a file here in one step: a reader, or the next start after a crash, sees the old or the new one whole. Only its
        owner may read it, also where it is copied to."""
        target = self.path / name
        partial = self.path / f".{name}.part"
        partial.unlink(missing_ok=True)
        with open(partial, "xb", opener=_open_private) as file:
            file.write(content)
        partial.replace(target)
        return target

    def remove(self, name: str) -> None:
        """Take away a file that may have been written here before, also one that was not written to its end."""
        for path in (self.path / name, self.path / f".{name}.part"):
            path.unlink(missing_ok=True)

    def remove_sockets(self) -> None:
        """Take away what dead processes have left. Only while no Envoy runs here."""
        for path in (self.admin_socket, *self.path.glob("hot_*")):
            path.unlink(missing_ok=True)


@dataclass(slots=True)
class Lock:
    """Held by one control plane from `take` to `release`; the kernel releases it when its process ends, however."""

    rundir: RunDir
    stop_grace: float = 0
    """For whoever wants us to end: seconds that it may take."""
    _descriptor: int = field(default=-1)

    def take(self) -> Self:
        """Raises AlreadyRunningError if another process holds it."""
        descriptor = os.open(self.rundir.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, stop_grace = _holder_in(descriptor)
            os.close(descriptor)
            raise AlreadyRunningError(self.rundir.folder, pid, stop_grace) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {self.stop_grace}".encode(), 0)
        self._descriptor = descriptor
        return self

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self.take()

    def __exit__(self, *_: object) -> None:
        self.release()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _holder_in(descriptor: int) -> tuple[int, float]:
    pid, _, stop_grace = os.pread(descriptor, 64, 0).decode(errors="replace").partition(" ")
    try:
        return int(pid), float(stop_grace or 0)
    except ValueError:
        return 0, 0  # it has only just taken it


def named_path(path: Path) -> Path:
    """The absolute path of what is named. Links in it stay: they may lead elsewhere later, as those of ConfigMap volumes and
    of `current -> releases/7` do. Only what comes before a `..` is looked up, since what that means depends on it."""
    parts = path.absolute().parts
    after = len(parts) - parts[::-1].index("..") if ".." in parts else 0
    return Path(*parts[:after]).resolve().joinpath(*parts[after:]) if after else Path(*parts)


def run_directory(folder: Path, environ: Mapping[str, str], *, make: bool = True) -> RunDir:
    """The run directory of a folder: always the same one for the same path and user, wherever links in the path lead. Made if
    need be, unless `make` is False; then it may not be there.

    Raises RunDirError where it would not be ours alone.
    """
    absolute = named_path(folder)
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:12]
    name = f"{re.sub('[^a-z0-9]+', '-', absolute.name.lower())[:16].strip('-')}-{digest}".lstrip("-")
    base = _base(environ, name)
    for path in (base, base / name):
        if make or os.path.lexists(path):
            _make_private(path)
    return RunDir(base / name, str(folder))


def _base(environ: Mapping[str, str], name: str) -> Path:
    candidates = []
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        candidates.append(Path(runtime))
    if state := environ.get("XDG_STATE_HOME"):
        candidates.append(Path(state))
    if home := environ.get("HOME"):
        candidates.append(Path(home) / ".local" / "state")
    for candidate in candidates:
        base = candidate / "gwanmun"
        fits = len(os.fsencode(base / name)) + _LONGEST_NAME <= _SOCKET_PATH_MAX
        if candidate.is_absolute() and fits and _can_make(base):
            return base
    # Short enough for any user, and guarded by _make_private against whoever else can write to /tmp.
    return Path("/tmp") / f"gwanmun-{os.geteuid()}"  # noqa: S108  see above


def _can_make(base: Path) -> bool:
    existing = next(path for path in (base, *base.parents) if path.exists())
    return os.access(existing, os.W_OK | os.X_OK)


def _make_private(path: Path) -> None:
    """Make a directory that only we can enter, or see that an existing one is that."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise RunDirError(f"{path} is not a directory of ours; remove it, or set XDG_RUNTIME_DIR to a directory that is")
    if found.st_mode & 0o077:
        path.chmod(0o700)

"""One Envoy process: its command line, starting it, and finding those that an earlier control plane started.

An Envoy belongs to a run directory, not to us: it is no child of ours and has a session of its own, so neither our death
nor Ctrl-C in our terminal reaches it. Deliberately absent: when to start one, and watching it (`local`).
"""

import hashlib
import itertools
import os
import resource
import struct
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from gwanmun.infra.bootstrap import fingerprint
from gwanmun.infra.envoy import EnvoyBinary
from gwanmun.infra.processes import Process, identify, is_alive, owner, running_commands
from gwanmun.infra.rundir import EnvoyProcess, RunDir

STOP_GRACE = timedelta(seconds=30)
_LOG_ROTATE_BYTES = 8 * 1024 * 1024
_LOG_TAIL_BYTES = 4096
_LOG_TAIL_LINES = 12
_SEGMENT_BYTES, _SEGMENT_VERSION = 104, 11
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (where shm_open puts what Envoy asks for)


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """`concurrency` is the number of worker threads (None: one per core that we may use).

    Old connections are asked to close over `drain_time` when their listener changes or Envoy is hot restarted, and the
    old process ends after `parent_shutdown_time`: answers that stream for longer are cut. `stop_grace` is how long
    requests may go on after a stop.
    """

    concurrency: int | None = None
    drain_time: timedelta = timedelta(minutes=10)
    parent_shutdown_time: timedelta = timedelta(minutes=11)
    stop_grace: timedelta = STOP_GRACE
    log_level: str = "warning"


def launch_fingerprint(binary: EnvoyBinary, bootstrap: bytes, options: LaunchOptions) -> str:
    """Two starts with the same fingerprint give the same Envoy. `stop_grace` is only our own patience."""
    return fingerprint(binary.version.encode(), bootstrap, " ".join(_behaviour(options)).encode())


def command(binary: EnvoyBinary, rundir: RunDir, options: LaunchOptions, *, mark: str, epoch: int, hot: bool) -> list[str]:
    """The command line. `mark` is the fingerprint, `epoch` 0 for a cold start; `hot` allows hot restarts later on."""
    line = [str(binary.path), "--config-path", str(rundir.path / bootstrap_name(mark)), *_behaviour(options)]
    if not hot:
        return [*line, "--disable-hot-restart"]
    # The sockets lie in the run directory: by default they are in an abstract name space that every local user reaches.
    line += ["--base-id", str(base_id(rundir)), "--socket-path", str(rundir.hot_restart_socket)]
    # Should the old process die just now, the new one is an ordinary start. Statistics begin anew: asking the old process
    # for its own holds the main thread up, and aborts where the old one has crashed.
    return [*line, "--restart-epoch", str(epoch), "--skip-hot-restart-on-no-parent", "--skip-hot-restart-parent-stats"]


def bootstrap_name(mark: str) -> str:
    """The file in the run directory that an Envoy of this fingerprint was started with."""
    return f"bootstrap-{mark}.json"


def _behaviour(options: LaunchOptions) -> list[str]:
    workers = ["--cpuset-threads"] if options.concurrency is None else ["--concurrency", str(options.concurrency)]
    drain, shutdown = (round(time.total_seconds()) for time in (options.drain_time, options.parent_shutdown_time))
    times = ["--drain-time-s", str(drain), "--parent-shutdown-time-s", str(shutdown)]
    return [*workers, *times, "--log-level", options.log_level]


def base_id(rundir: RunDir) -> int:
    """Envoy's shared memory is named by it: another number for each run directory and user, and the same one each time,
    so that no segments are left behind. Envoy multiplies it by 10, in 32 bits."""
    digest = hashlib.sha256(f"{os.geteuid()} {rundir.path}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x0FFF_FFFF


def shared_memory(rundir: RunDir) -> Path:
    """The file behind the memory that the processes of a hot restart share (104 bytes; Envoy leaves it when it ends)."""
    return _SHARED_MEMORY / f"envoy_shared_memory_{base_id(rundir) * 10}"


def forget_failed_successor(rundir: RunDir) -> None:
    """A successor that ended while it started has left its mark in the shared memory, and Envoy starts no other one until
    the mark is gone. Only while no successor is starting.

    The segment, as of hot restart version 11: its size and version, two 40-byte locks, then the marks; 8 bytes each.
    """
    with shared_memory(rundir).open("r+b") as segment:
        size, version = struct.unpack("<QQ", segment.read(16))
        if (size, version) == (_SEGMENT_BYTES, _SEGMENT_VERSION):
            segment.seek(_SEGMENT_BYTES - 8)
            segment.write(bytes(8))


def hot_restart_obstacle(rundir: RunDir) -> str | None:
    """Why Envoy cannot be hot restarted here; None if it can."""
    if sys.platform != "linux":
        return "Envoy has no hot restart on this system"
    if not os.access(_SHARED_MEMORY, os.W_OK | os.X_OK):
        return f"{_SHARED_MEMORY} is not writable"
    segment = shared_memory(rundir)
    if segment.exists() and segment.stat().st_uid != os.geteuid():
        return f"{segment} belongs to another user"
    return None


@dataclass(slots=True)
class Envoy:
    """A process we started or found. `log_start` is where its own lines begin."""

    record: EnvoyProcess
    log_start: int

    @property
    def pid(self) -> int:
        return self.record.process.pid

    @property
    def process(self) -> Process:
        return self.record.process

    def how_it_ended(self) -> str:
        """In words. Only the parent is told how; that is the system's first process, and we may be that one in a container
        (then this must be called, once, for every Envoy that has ended)."""
        try:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return "ended"
        code = os.waitstatus_to_exitcode(status) if ended else 0
        return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


_ORPHANED = """
exec 3<&0
{ read -r go <&3 && exec "$0" "$@" 3<&- >&2; } &
echo $!
"""
"""A shell that starts the command, says its process id and ends. The command waits for a line before it begins, and does
not begin if there will be none."""


def launch(line: list[str], rundir: RunDir, *, mark: str, epoch: int, version: str) -> Envoy:
    """Start Envoy, apart from us. Raises OSError if no process can be made.

    Where it can be hot restarted Envoy asks the kernel (PR_SET_PDEATHSIG) to end it together with its parent. So its
    parent, a shell, has to be gone before it asks.
    """
    _rotate(rundir.log)
    with rundir.log.open("ab") as log:
        log_start = log.tell()
        shell = subprocess.Popen(
            ["/bin/sh", "-c", _ORPHANED, *line],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=rundir.path,
            start_new_session=True,
        )
    assert shell.stdin is not None
    assert shell.stdout is not None
    with shell.stdin as gate, shell.stdout as said:
        pid = int(said.readline())
        shell.wait()
        # Waiting at the gate it certainly lives: its birth is read, and noted, before anything can end it.
        process = identify(pid)
        assert process is not None
        _allow_many_files(pid)
        gate.write(b"go\n")
    return Envoy(EnvoyProcess(process, epoch, mark, version), log_start)


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > _LOG_ROTATE_BYTES:
        log.replace(log.with_suffix(".log.1"))


def _allow_many_files(pid: int) -> None:
    """Every connection is a file: raise the limit to what the system allows at most."""
    if sys.platform == "linux":
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def log_tail(log: Path, start: int = 0) -> str:
    """The last lines of the log, none from before the byte `start`; empty if there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - _LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.strip().splitlines()[-_LOG_TAIL_LINES:])


def find_envoys(rundir: RunDir) -> list[Envoy]:
    """The Envoys of this run directory that still run, the serving one last."""
    found = {recorded.process.pid: recorded for recorded in rundir.read_state().envoys if is_alive(recorded.process)}
    # A control plane that was killed between starting Envoy and noting it down left one that only its arguments betray.
    for pid, arguments in running_commands():
        if pid not in found and (recorded := _from_arguments(rundir, pid, arguments)):
            found[pid] = recorded
    end_of_log = rundir.log.stat().st_size if rundir.log.exists() else 0
    return [Envoy(recorded, end_of_log) for recorded in sorted(found.values(), key=lambda e: (e.epoch, e.process.pid))]


def noted(rundir: RunDir, name: str) -> bytes | None:
    """A file of the run directory that was written for the Envoy which still runs; None if none does: nobody relies on it."""
    content = rundir.read(name)
    return content if content is not None and find_envoys(rundir) else None


def _from_arguments(rundir: RunDir, pid: int, arguments: list[str]) -> EnvoyProcess | None:
    options = dict(itertools.pairwise(arguments))
    config = Path(options.get("--config-path", ""))
    if config.parent != rundir.path or not Path(arguments[0]).name.startswith("envoy") or owner(pid) != os.geteuid():
        return None
    process = identify(pid)
    if process is None:
        return None
    mark = config.stem.removeprefix("bootstrap-")
    return EnvoyProcess(process, int(options.get("--restart-epoch", 0)), mark, version="")

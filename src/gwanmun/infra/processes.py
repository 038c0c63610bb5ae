"""Processes that may not be our children: who they are, when they end, and ending them.

A process id alone names nobody: ids are used again. Here a process is its id and its birth, and no signal is sent before
both are seen to be the same. Deliberately absent: anything about Envoy.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.05
"""Where the system has no pidfd: how often to look."""


@dataclass(frozen=True, slots=True)
class Process:
    """`birth` differs for every process that ever has this id, across restarts of the machine too."""

    pid: int
    birth: str


def identify(pid: int) -> Process | None:
    """The process that has this id now; None if there is none, or only its exit status is left (a zombie)."""
    birth = _birth_linux(pid) if sys.platform == "linux" else _birth_ps(pid)
    return None if birth is None else Process(pid, birth)


def is_alive(process: Process) -> bool:
    """Whether this very process still runs."""
    return identify(process.pid) == process


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to this very process. False if it has ended. PermissionError if it belongs to somebody else."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        if not is_alive(process):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        return True
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # Looked at after the descriptor is open: from then on it cannot come to mean another process.
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


async def wait_ended(process: Process) -> None:
    """Return when this very process has ended; at once if it already has."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        while is_alive(process):  # noqa: ASYNC110 (this system has nothing to wait on)
            await asyncio.sleep(_POLL_SECONDS)
        return
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    try:
        if not is_alive(process):
            return
        # A pidfd is readable once its process is a zombie, whoever its parent is.
        loop.add_reader(pidfd, lambda: None if ended.done() else ended.set_result(None))
        await ended
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def ended_within(process: Process, seconds: float) -> bool:
    """Whether this very process ends in that time."""
    try:
        async with asyncio.timeout(seconds):
            await wait_ended(process)
    except TimeoutError:
        return False
    return True


async def end(process: Process, *, patience: float = 5.0) -> None:
    """End this very process: politely, and after `patience` seconds by force. Returns when it has ended."""
    if send(process, signal.SIGTERM) and not await ended_within(process, patience):
        send(process, signal.SIGKILL)
    await wait_ended(process)


def owner(pid: int) -> int | None:
    """The user a running process belongs to; None if that cannot be told here."""
    with contextlib.suppress(OSError):
        return os.stat(f"/proc/{pid}").st_uid
    return None


def running_commands() -> list[tuple[int, list[str]]]:
    """Every process of this machine with its arguments, as far as they can be read; empty without /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # Processes come and go, and some are not ours to look at.
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            found.append((int(entry.name), arguments[:-1]))
    return found


def _birth_linux(pid: int) -> str | None:
    try:
        # The command's name, in parentheses, may hold anything; the fields after it are numbers (proc_pid_stat(5)).
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    start_time = fields[18]
    return None if state in "ZX" else f"{boot}/{start_time}"


def _birth_ps(pid: int) -> str | None:
    shown = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = shown.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()

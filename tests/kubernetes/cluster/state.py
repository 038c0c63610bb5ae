"""What a cluster leaves on disk, so that another process can find, enter and remove it.

`STATE/init` names the one process whose end is the end of everything in the cluster (it is process 1 of a PID namespace),
with its start time, because process ids come back.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Init:
    """Process 1 of a cluster as this machine sees it: process id and start time in clock ticks since boot."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Whether that very process, and not a later one with its number, is running."""
        return start_time(self.pid) == self.started


def base() -> Path:
    """The folder with one folder per cluster of this user."""
    return Path(tempfile.gettempdir()) / f"test-clusters-{os.getuid()}"


def read_init(state: Path) -> Init | None:
    """Process 1 of the cluster in `state`; None where none was started there."""
    try:
        pid, started = (state / "init").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return Init(int(pid), started)


def write_init(state: Path, pid: int) -> None:
    """Records `pid` as process 1 of the cluster in `state`; readers never see half of it."""
    temporary = state / "init.new"
    temporary.write_text(f"{pid} {start_time(pid)}\n")
    temporary.rename(state / "init")


def start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat; "" where there is no such process or only its zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def wait_for_end(init: Init, seconds: float) -> None:
    """Returns when `init` is no more, at the latest after `seconds`. Polls: it need not be a child of this process."""
    deadline = time.monotonic() + seconds
    while init.alive() and time.monotonic() < deadline:
        time.sleep(0.02)


def clusters() -> list[Path]:
    """The state folders of all clusters, dead ones included."""
    return sorted(path for path in base().glob("*") if path.is_dir())


def remove(state: Path) -> None:
    """Ends the cluster in `state`, if it runs, and removes the folder. Whatever ran in it is gone when this returns."""
    init = read_init(state)
    if init is not None and init.alive():
        os.kill(init.pid, signal.SIGKILL)  # the kernel ends everything else in the PID namespace with it
        wait_for_end(init, 10.0)
    shutil.rmtree(state, ignore_errors=True)


def remove_dead() -> None:
    """Removes what clusters left behind whose processes are gone."""
    for state in clusters():
        init = read_init(state)
        if init is not None and not init.alive():
            remove(state)

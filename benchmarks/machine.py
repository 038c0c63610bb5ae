"""The machine that a benchmark runs on: its cores, how busy it is, and what a process has used.

Deliberately absent: any judgement. Figures of two runs can be compared only as ratios inside each run.
"""

import os
import platform
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core the measured gateway gets, and which the load and the backends. None: there is one core, or no taskset."""

    gateway: int | None
    rest: int | None


def cores() -> Cores:
    """Two of the cores that we may use; the gateway's is nobody else's of ours."""
    mine = sorted(os.sched_getaffinity(0))
    return Cores(mine[0], mine[1]) if len(mine) > 1 else Cores(None, None)


def pin(pid: int, core: int | None) -> None:
    """Keep all threads of a process on one core; those it makes later inherit it."""
    if core is None:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def pinned(core: int | None) -> list[str]:
    """What a command line begins with to run on that core."""
    return ["taskset", "--cpu-list", str(core)] if core is not None else []


def cpu_seconds(pid: int) -> float:
    """Processor time that the threads of a process have used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_mib(pid: int) -> float:
    """Memory that a process has in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has ended")


def free_port() -> int:
    """A TCP port on loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def description() -> str:
    """One line on the machine, with how busy it is: a load above the number of ours means others were measured too."""
    one, five, _ = os.getloadavg()
    load = f"load average {one:.1f} (1 min), {five:.1f} (5 min)"
    return f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}, {load}"


def commit() -> str:
    """The checkout that is measured; "unknown" outside of one."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"

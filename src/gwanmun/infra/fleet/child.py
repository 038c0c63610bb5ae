"""Envoy as a child of the proxy container's program: it ends when its parent ends, however that comes."""

import asyncio
import os
import sys
from pathlib import Path

from gwanmun.infra.envoy import EnvoyBinary

_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
parent, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(parent):  # else it has ended before it could be noticed
    os.execv(command[0], command)
"""
"""A program that becomes the command. A `preexec_fn` would do the same between fork and exec, where the handlers of other
libraries run too: while calls are under way, gRPC's end a third of such children by SIGSEGV or SIGABRT."""


def child_command(
    binary: EnvoyBinary, bootstrap: Path, *, concurrency: int | None, log_level: str, drain_seconds: int
) -> list[str]:
    """The command line. A pod is replaced and not restarted, so there is nothing to hand over to a successor."""
    workers = ["--cpuset-threads"] if concurrency is None else ["--concurrency", str(concurrency)]
    return [
        str(binary.path),
        "--config-path",
        str(bootstrap),
        "--disable-hot-restart",
        *workers,
        "--drain-time-s",
        str(max(1, drain_seconds)),
        "--log-level",
        log_level,
    ]


async def start_child(command: list[str]) -> asyncio.subprocess.Process:
    """Start it in a session of its own: a signal to our process group is for us, who let requests finish first."""
    launcher = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())] if sys.platform == "linux" else []
    return await asyncio.create_subprocess_exec(*launcher, *command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True)


async def end_child(child: asyncio.subprocess.Process, *, patience: float = 5.0) -> int:
    """End it, by force when it has not within `patience` seconds. Returns its exit code (negative: the signal)."""
    if child.returncode is None:
        child.terminate()
        try:
            async with asyncio.timeout(patience):
                await child.wait()
        except TimeoutError:
            child.kill()
    return await child.wait()

"""Envoy as a child of the proxy container's program: it ends when its parent ends, however that comes."""

import asyncio
import ctypes
import signal
import sys
from pathlib import Path

from gwanmun.infra.envoy import EnvoyBinary

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


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
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_die_with_parent if _libc is not None else None,
    )


def _die_with_parent() -> None:
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


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

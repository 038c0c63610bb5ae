"""Ending Envoy: let requests finish, then end the processes, and clear what a folder's gateway leaves behind."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from gwanmun.infra import kept
from gwanmun.infra.admin import Admin, AdminError
from gwanmun.infra.launch import STOP_GRACE, Envoy, find_envoys, shared_memory
from gwanmun.infra.processes import end, ended_within, identify, is_alive, send, wait_ended
from gwanmun.infra.rundir import AlreadyRunningError, Lock, RunDir, State

_POLL_SECONDS = 0.05
_TRIES = 100
_MORE_SECONDS = 10.0
"""For what a control plane does besides draining, on a busy machine."""


async def drain(admin: Admin, grace: timedelta, *, gone: Callable[[], bool], hurry: asyncio.Event | None = None) -> int:
    """Take no new connections and wait until nothing is in flight, for `grace` at most, or until `hurry` is set. `gone` says
    whether Envoy has ended.

    Returns how many requests and connections are still in use then, as far as is known: 0 if all have finished, or Envoy has.
    """
    unfinished = 0
    told = False
    try:
        async with asyncio.timeout(grace.total_seconds()):
            while not gone():
                if hurry is not None and hurry.is_set():
                    return unfinished
                # One that gives no answer is busy, however often: it may well have requests in flight.
                with contextlib.suppress(AdminError):
                    if not told:
                        # In this order: connections that live on learn from their next answer that they are to be closed.
                        await admin.fail_health_checks()
                        await admin.drain_listeners()
                        told = True
                    unfinished = await admin.unfinished()
                    if not unfinished:
                        return 0
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        return unfinished
    return 0


def all_ended(envoys: Sequence[Envoy]) -> bool:
    """Whether none of these processes runs any more."""
    return not any(is_alive(envoy.process) for envoy in envoys)


async def end_all(envoys: Sequence[Envoy]) -> None:
    """End these processes; one that is hung is killed."""
    await asyncio.gather(*(end(envoy.process) for envoy in envoys))
    for envoy in envoys:
        envoy.how_it_ended()


@dataclass(frozen=True, slots=True)
class Ended:
    """Process ids: of the control plane that was told to end, if one ran, and of the Envoys that were left."""

    control_plane: int | None
    envoys: tuple[int, ...]


async def down(
    rundir: RunDir,
    *,
    admin: Admin | None = None,
    grace: timedelta = STOP_GRACE,
    tell: Callable[[str], None] = lambda _: None,
) -> Ended:
    """End everything that serves this folder, and forget its state; the log stays. Fine if nothing runs.

    `tell` is called with what is waited for. AlreadyRunningError where the control plane does not let go, or another has
    come in its place.
    """
    lock = Lock(rundir)
    control_plane = None
    try:
        lock.take()
    except AlreadyRunningError as running:
        control_plane = running.pid
        tell(f"waiting for gwanmun (process {running.pid}) to end; requests may finish for {running.stop_grace:g} s")
        await _end_control_plane(control_plane, running.stop_grace)
        await _take_soon(lock)
    try:
        envoys = find_envoys(rundir)
        if envoys:
            tell(f"ending Envoy (process {envoys[-1].pid}); requests may finish for {grace.total_seconds():g} s")
            await drain(admin or Admin(rundir.admin_socket), grace, gone=partial(all_ended, envoys))
            await end_all(envoys)
        clear(rundir)
    finally:
        lock.release()
    return Ended(control_plane, tuple(envoy.pid for envoy in envoys))


def clear(rundir: RunDir) -> None:
    """Remove what only a running Envoy needs. Only while none runs."""
    rundir.remove_sockets()
    rundir.xds_socket.unlink(missing_ok=True)
    rundir.remove(kept.FILE)
    rundir.write_state(State())
    segment = shared_memory(rundir)
    if segment.exists() and segment.stat().st_uid == os.geteuid():
        segment.unlink(missing_ok=True)
    for bootstrap in rundir.path.glob("bootstrap-*.json"):
        bootstrap.unlink(missing_ok=True)


async def _take_soon(lock: Lock) -> None:
    """Its holder has ended, or was about to when we looked."""
    for _ in range(_TRIES):
        try:
            lock.take()
        except AlreadyRunningError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return
    lock.take()


async def _end_control_plane(pid: int, stop_grace: float) -> None:
    """It drains and ends its Envoy itself, which takes up to `stop_grace` and a little."""
    process = identify(pid)
    if process is None or not send(process, signal.SIGTERM):
        return
    if not await ended_within(process, stop_grace + _MORE_SECONDS):
        send(process, signal.SIGKILL)
        await wait_ended(process)

"""Envoy on this machine: keeps one process serving with the wanted bootstrap, whoever started it.

`LocalEnvoy` owns a task that starts, watches, restarts and hot restarts; what happens is reported as events. A process
that an earlier control plane left is taken over as it is. Deliberately absent: what Envoy serves, and printing.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from gwanmun.infra.admin import Admin, AdminError
from gwanmun.infra.backoff import Failures
from gwanmun.infra.bootstrap import AdminAddress, serialize_bootstrap
from gwanmun.infra.ending import clear, drain, end_all
from gwanmun.infra.envoy import EnvoyBinary, hot_restart_version
from gwanmun.infra.launch import (
    Envoy,
    LaunchOptions,
    bootstrap_name,
    command,
    find_envoys,
    forget_failed_successor,
    hot_restart_obstacle,
    launch,
    launch_fingerprint,
    log_tail,
    shared_memory,
)
from gwanmun.infra.processes import is_alive, wait_ended
from gwanmun.infra.rundir import RunDir, State

_POLL_SECONDS = 0.02
"""Envoy tells nobody that it is ready: it has to be asked. Each question takes well under a millisecond of its time."""


@dataclass(frozen=True, slots=True)
class Started:
    """A new process after which nothing older is left."""

    pid: int


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process of an earlier control plane goes on, untouched."""

    pid: int


@dataclass(frozen=True, slots=True)
class HotRestarted:
    """`pid` has taken over the listening sockets; `old_pid` finishes its connections and ends by itself."""

    pid: int
    old_pid: int


@dataclass(frozen=True, slots=True)
class Ready:
    """All configuration is there and the listeners are open. `seconds` since it was started or found."""

    pid: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Envoy ended, could not be started, or could not be hot restarted; tried again in `retry_seconds`."""

    message: str
    log_tail: str
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class Notice:
    """Something works less well here than it could; nothing is broken."""

    message: str


Event = Started | Adopted | HotRestarted | Ready | Failed | Notice


@dataclass(frozen=True, slots=True)
class EnvoyStatus:
    """`pid` is None while no Envoy runs. `problem` says in words what is wrong, None if nothing is."""

    pid: int | None
    epoch: int
    ready: bool
    restarts: int
    draining: tuple[int, ...]
    problem: str | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    bootstrap: bytes
    mark: str


class LocalEnvoy:
    """The Envoy of one run directory, whose lock the caller holds.

    `report` is called with every event, from the event loop. `clock` gives seconds that only rise, `draw` numbers from
    0 to 1. After `start` one of `leave` and `stop` ends it; killed without either, Envoy serves on all the same.
    """

    def __init__(
        self,
        rundir: RunDir,
        binary: EnvoyBinary,
        *,
        report: Callable[[Event], None],
        clock: Callable[[], float],
        draw: Callable[[], float],
        options: LaunchOptions | None = None,
        admin: AdminAddress | None = None,
    ) -> None:
        self.admin = Admin(rundir.admin_socket if admin is None else admin)
        self._rundir = rundir
        self._binary = binary
        self._options = options or LaunchOptions()
        self._report = report
        self._clock = clock
        self._draw = draw
        self._wanted: _Wanted
        self._current: Envoy | None = None
        self._successor: Envoy | None = None
        self._draining: list[Envoy] = []
        self._since = 0.0
        self._failures = Failures()
        self._restarts = 0
        self._problem: str | None = None
        self._refused: str | None = None
        self._hot_obstacle: str | None = None
        self._changed = asyncio.Event()
        self._ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching_ready: asyncio.Task[None] | None = None

    @property
    def status(self) -> EnvoyStatus:
        current = self._current
        return EnvoyStatus(
            pid=current.pid if current else None,
            epoch=current.record.epoch if current else 0,
            ready=self._ready.is_set(),
            restarts=self._restarts,
            draining=tuple(envoy.pid for envoy in self._draining),
            problem=self._problem or self._refused,
        )

    async def start(self, bootstrap: Mapping[str, Any]) -> None:
        """Adopt the Envoy that runs, or start one. Returns without waiting until it is ready."""
        self._hot_obstacle = hot_restart_obstacle(self._rundir)
        if self._hot_obstacle is not None:
            self._report(Notice(f"a changed bootstrap will interrupt traffic for a moment: {self._hot_obstacle}"))
        self._want(bootstrap)
        await self._take_over(find_envoys(self._rundir))
        if self._current is None:
            await self._start_cold()
        self._in_background(self._supervise())

    def apply(self, bootstrap: Mapping[str, Any]) -> None:
        """From now on run with this bootstrap. The same one changes nothing; another one means a hot restart."""
        self._want(bootstrap)
        self._changed.set()

    async def wait_ready(self) -> None:
        """Return when Envoy serves."""
        await self._ready.wait()

    async def leave(self) -> None:
        """Stop watching; Envoy serves on, for the next control plane to adopt."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def stop(self, hurry: asyncio.Event | None = None) -> int:
        """Let requests finish for `stop_grace`, or until `hurry` is set, then end Envoy. Returns how many had not finished
        by then."""
        await self.leave()
        envoys = [envoy for envoy in (*self._draining, self._current, self._successor) if envoy is not None]
        unfinished = 0
        if self._current is not None and is_alive(self._current.process):
            unfinished = await self._drain(self._current, hurry)
        await end_all(envoys)
        self._current = self._successor = None
        self._draining.clear()
        self._ready.clear()
        clear(self._rundir)
        return unfinished

    async def _drain(self, envoy: Envoy, hurry: asyncio.Event | None = None) -> int:
        """Let it finish, for `stop_grace`, or until `hurry` is set. Returns how many requests had not by then."""
        return await drain(self.admin, self._options.stop_grace, gone=lambda: not is_alive(envoy.process), hurry=hurry)

    def _want(self, bootstrap: Mapping[str, Any]) -> None:
        content = serialize_bootstrap(bootstrap)
        self._wanted = _Wanted(content, launch_fingerprint(self._binary, content, self._options))
        self._refused = None

    async def _take_over(self, found: list[Envoy]) -> None:
        """Make what runs ours, if it can go on or be hot restarted; otherwise end it."""
        if not found:
            return
        *older, newest = found
        try:
            unusable = await self._why_unusable(newest)
        except AdminError as error:
            self._report(Notice(f"Envoy {newest.pid} of an earlier start is ended: {error}"))
            await end_all(found)
            return
        if unusable is not None:
            self._report(Notice(f"Envoy {newest.pid} of an earlier start is ended: {unusable}"))
            await self._drain(newest)
            await end_all(found)
            return
        self._current = newest
        self._since = self._clock()
        for envoy in older:
            self._let_drain(envoy)
        if newest.record.fingerprint == self._wanted.mark:
            self._report(Adopted(newest.pid))
            self._watch_readiness()

    async def _why_unusable(self, envoy: Envoy) -> str | None:
        info = await self.admin.server_info()
        if info.epoch != envoy.record.epoch:
            return f"its admin interface answers for restart {info.epoch}, not {envoy.record.epoch}"
        if info.state == "DRAINING":
            return "it has been told to drain"
        if envoy.record.fingerprint == self._wanted.mark:
            return None
        if info.state != "LIVE":
            return "it was started with another bootstrap, and has not begun to serve"
        if self._hot_obstacle is not None:
            return f"it was started with another bootstrap, and {self._hot_obstacle}"
        if info.hot_restart_version != await asyncio.to_thread(hot_restart_version, self._binary):
            return f"it is Envoy {info.version}, which cannot be hot restarted into {self._binary.version}"
        return None

    async def _supervise(self) -> None:
        while True:
            self._changed.clear()
            current = self._current
            if current is None:
                await self._start_cold()
            elif not is_alive(current.process):
                await self._mourn(current)
            elif current.record.fingerprint != self._wanted.mark:
                await self._restart(current)
            else:
                await self._until_ended_or_changed(current)

    async def _until_ended_or_changed(self, envoy: Envoy) -> None:
        waits = {asyncio.create_task(wait_ended(envoy.process)), asyncio.create_task(_set(self._changed))}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _mourn(self, dead: Envoy) -> None:
        self._current = None
        self._ready.clear()
        self._restarts += 1
        tail = log_tail(self._rundir.log, dead.log_start)
        message = f"Envoy (process {dead.pid}) {dead.how_it_ended()}"
        self._problem = f"{message}; the end of its log: {tail or 'nothing'}"
        await self._fail(message, tail)

    async def _fail(self, message: str, tail: str) -> None:
        """Tell, and wait before anything is tried again; a change of what is wanted ends the wait."""
        self._failures = self._failures.after(self._clock() - self._since)
        delay = self._failures.delay(self._draw)
        self._since = self._clock()
        again = f" ({self._failures.count} failures in a row)" if self._failures.count > 1 else ""
        self._report(Failed(message + again, tail, delay))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._changed.wait()

    async def _start_cold(self) -> None:
        # Those still draining hold nothing that a new process could inherit, only ports that it wants.
        await end_all(self._draining)
        self._draining.clear()
        self._rundir.remove_sockets()
        try:
            self._current = self._launch(epoch=0)
        except OSError as error:
            self._problem = f"Envoy ({self._binary.path}) cannot be started: {error.strerror}"
            await self._fail(self._problem, "")
            return
        self._since = self._clock()
        self._note_state()
        self._report(Started(self._current.pid))
        self._watch_readiness()

    async def _restart(self, old: Envoy) -> None:
        obstacle = self._hot_obstacle or (None if shared_memory(self._rundir).exists() else "its shared memory is gone")
        if not self._ready.is_set() and not await self.admin.is_ready():
            await end_all([old])  # it serves nothing yet, and hands nothing over
            self._current = None
        elif obstacle is None:
            await self._hot_restart(old)
        else:
            self._report(Notice(f"Envoy is stopped and started, since its bootstrap has changed and {obstacle}"))
            self._ready.clear()
            await self._drain(old)
            await end_all([old])
            self._current = None

    async def _hot_restart(self, old: Envoy) -> None:
        """Start a successor that takes the sockets over once it has all its configuration; until then `old` serves.

        A predecessor of `old` that still drains is ended by `old` itself, now. We must not: a process that finds its
        predecessor gone before it has told it to end blocks for ten seconds and aborts.
        """
        begun = self._clock()
        try:
            forget_failed_successor(self._rundir)
            self._successor = new = self._launch(epoch=old.record.epoch + 1)
        except OSError as error:
            self._refused = f"Envoy goes on with its old bootstrap: {self._binary.path} cannot be started: {error.strerror}"
            await self._fail(self._refused, "")
            return
        self._note_state()
        live = await self._live_or_ended(new)
        self._successor = None
        if not live:
            self._note_state()
            tail = log_tail(self._rundir.log, new.log_start)
            message = f"Envoy goes on with its old bootstrap: its successor (process {new.pid}) {new.how_it_ended()}"
            self._refused = f"{message}; the end of its log: {tail or 'nothing'}"
            await self._fail(message, tail)
            return
        self._refused = None
        self._current = new
        self._since = begun
        self._let_drain(old)
        self._report(HotRestarted(new.pid, old.pid))
        self._watch_readiness()

    async def _live_or_ended(self, envoy: Envoy) -> bool:
        while is_alive(envoy.process):
            with contextlib.suppress(AdminError):
                info = await self.admin.server_info()
                if info.epoch == envoy.record.epoch and info.state == "LIVE":
                    return True
            await asyncio.sleep(_POLL_SECONDS)
        return False

    def _launch(self, *, epoch: int) -> Envoy:
        mark = self._wanted.mark
        self._rundir.write(bootstrap_name(mark), self._wanted.bootstrap)
        hot = self._hot_obstacle is None
        line = command(self._binary, self._rundir, self._options, mark=mark, epoch=epoch, hot=hot)
        return launch(line, self._rundir, mark=mark, epoch=epoch, version=self._binary.version)

    def _let_drain(self, envoy: Envoy) -> None:
        """Its successor ends it when its time is over; all that is to do is to notice."""
        self._draining.append(envoy)
        self._note_state()
        self._in_background(self._forget_when_ended(envoy))

    async def _forget_when_ended(self, envoy: Envoy) -> None:
        await wait_ended(envoy.process)
        envoy.how_it_ended()
        if envoy in self._draining:
            self._draining.remove(envoy)
            self._note_state()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_tell_failure)
        return task

    def _note_state(self) -> None:
        envoys = (*self._draining, self._current, self._successor)
        self._rundir.write_state(State(tuple(envoy.record for envoy in envoys if envoy is not None)))

    def _watch_readiness(self) -> None:
        if self._watching_ready is not None:
            self._watching_ready.cancel()
        assert self._current is not None
        self._watching_ready = self._in_background(self._await_readiness(self._current))

    async def _await_readiness(self, envoy: Envoy) -> None:
        while not await self.admin.is_ready():
            if not is_alive(envoy.process):
                return  # _supervise sees the same, and says so
            await asyncio.sleep(_POLL_SECONDS)
        self._ready.set()
        self._report(Ready(envoy.pid, self._clock() - self._since))
        await asyncio.sleep(self._failures.trusted_after)
        self._problem = None


async def _set(event: asyncio.Event) -> None:
    await event.wait()


def _tell_failure(task: asyncio.Task[None]) -> None:
    """A task of ours that raises is a mistake of ours: nobody awaits it, so the event loop is told."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler({"message": "the supervision of Envoy failed", "exception": error, "task": task})

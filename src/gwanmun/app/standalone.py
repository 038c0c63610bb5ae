"""`gwanmun up`: a folder of manifests and an Envoy on this machine.

`Standalone` puts the parts together and keeps them in step: provider -> pipeline -> ADS -> Envoy. It holds the folder's
run directory; when it is killed Envoy serves on, and the next one of the same folder takes it over.
"""

import asyncio
import contextlib
import gc
import ipaddress
import os
import random
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import structlog

from gwanmun.app import report
from gwanmun.app.accesslog import keep_small
from gwanmun.app.control import control_server
from gwanmun.app.errors import UserError
from gwanmun.app.explaining import explanation_document
from gwanmun.app.pipeline import Picture, Pipeline, PipelineOptions
from gwanmun.explain import Door, Request, Served, explain
from gwanmun.infra.bootstrap import BootstrapOptions, bootstrap
from gwanmun.infra.bound import Bindings, read_bindings, write_bindings
from gwanmun.infra.ending import down
from gwanmun.infra.envoy import EnvoyBinary, Module, NoModule, find_envoy, place_module
from gwanmun.infra.kept import Kept, read_kept, write_kept
from gwanmun.infra.launch import LaunchOptions
from gwanmun.infra.local import Event, LocalEnvoy
from gwanmun.infra.memory import machine_heap, machine_memory
from gwanmun.infra.ports import PortOptions
from gwanmun.infra.probe import first_unprivileged_port, unusable
from gwanmun.infra.rundir import Lock, RunDir, RunDirError, run_directory
from gwanmun.names import NamespacedName
from gwanmun.protos import EnvoyBinaryError
from gwanmun.providers import Changes, FolderProvider, ServiceBinding
from gwanmun.providers.ahead import ReadAhead
from gwanmun.resolve.world import Settings
from gwanmun.xds.options import Options
from gwanmun.xds_server.publisher import Publisher
from gwanmun.xds_server.server import XdsServer

SCOPE = "local"
"""One machine has one proxy, which gets everything."""

ACCESS_LOG = "access.log"
_TELL_AFTER_S = 0.05
_PORTS_AGAIN_S = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StandaloneOptions:
    """What `up` is told. `controllers` empty means the names that are ours by default."""

    paths: tuple[Path, ...]
    address: str = "127.0.0.1"
    zone: str = ""
    bindings: tuple[ServiceBinding, ...] = ()
    concurrency: int | None = None
    controllers: tuple[str, ...] = ()
    drain_seconds: int = 10


class Observer(Protocol):
    """Tells people what happens. Called with everything that holds now; saying only what is new is its own business."""

    def addresses(self, lines: set[str]) -> None: ...
    def problems(self, lines: set[str]) -> None: ...
    def event(self, line: str) -> None: ...


class Standalone:
    """One running gateway. `run` returns after `request_stop` (or a signal), when everything has ended in good order. `ahead`
    is what has been read of its manifests already."""

    def __init__(
        self,
        options: StandaloneOptions,
        *,
        observer: Observer | None = None,
        ahead: ReadAhead = ReadAhead(),  # noqa: B008  # nothing was read, and so nothing is taken out of it
    ) -> None:
        self.options = options
        self._observer = observer
        self._ahead = ahead
        self._publisher = Publisher()
        self._picture: Picture | None = None
        self._settings = Settings(options.controllers) if options.controllers else Settings()
        self._picture_problems = report.PictureProblems(self._settings.controller_names)
        self._sources: tuple[str, ...] = ()
        self._warnings: frozenset[str] = frozenset()
        self._module: Module | NoModule = NoModule("the gateway has not started")
        self._binary: EnvoyBinary | None = None
        self._envoy: LocalEnvoy | None = None
        self._stopping = asyncio.Event()
        self._hurrying = asyncio.Event()
        self._version = 0
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Serve until asked to stop. UserError where it cannot even start."""
        rundir, self._binary = _prepare(self.options)
        async with AsyncExitStack() as stack:
            stack.enter_context(_held(rundir, self.options.drain_seconds))
            _stop_on_signals(self)
            self._module = place_module(rundir)
            server = XdsServer(self._publisher, lambda _node, _peer: SCOPE)
            rundir.xds_socket.unlink(missing_ok=True)
            await server.start(f"unix:{rundir.xds_socket}")
            stack.push_async_callback(server.stop)
            await stack.enter_async_context(control_server(self, rundir.path))
            stack.callback(self._publisher.observe(self._changed))
            bound_before, kept_before = read_bindings(rundir), read_kept(rundir)
            stack.callback(gc.enable)  # see _follow
            self._envoy = self._local_envoy(rundir, self._binary)
            await self._envoy.start(bootstrap(self._bootstrap_options(rundir)))
            stack.push_async_exit(self._end_envoy)
            works = [self._follow(rundir, bound_before, kept_before), keep_small(rundir.path / ACCESS_LOG, self._envoy.admin)]
            if self._observer is not None:
                works.append(self._keep_telling(self._observer))
            async with _in_background(*works) as tasks:
                stopping = asyncio.create_task(self._stopping.wait())
                await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                for task in tasks:
                    if task.done():
                        task.result()  # a bug of ours: end with its traceback, Envoy serves on
            self._tell(
                f"draining for up to {self.options.drain_seconds} s: connections are asked to end"
                " (a second Ctrl-C ends them now)"
            )

    def request_stop(self) -> None:
        """End in good order, soon; asked again, now."""
        if self._stopping.is_set():
            self._hurrying.set()
        self._stopping.set()

    def hang_up(self) -> None:
        """The terminal is gone: end in good order. The kernel and the shell both say so, which is no reason to hurry."""
        self._stopping.set()

    async def stop(self, serving: "asyncio.Task[None]") -> None:
        """Ask the task of `run` to end, and wait for it."""
        self.request_stop()
        await serving

    async def wait_until_serving(self, serving: "asyncio.Task[None]") -> None:
        """Return when Envoy serves the first picture; raises what `run` raises if it ends before."""
        ready = asyncio.create_task(self._first_served())
        await asyncio.wait([ready, serving], return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            serving.result()
            raise UserError("the gateway was stopped before it served anything")
        ready.result()

    async def serving_after(self, version: int) -> None:
        """Return when Envoy has applied a set of resources that is newer than `version`."""
        await self._publisher.until(lambda: self.version > version and self._applied() >= self.version)

    @property
    def version(self) -> int:
        """Serial of the set of resources that was published last; 0 before the first."""
        published = self._publisher.published(SCOPE)
        return published.serial if published else 0

    @property
    def has_module(self) -> bool:
        return isinstance(self._module, Module)

    def ports_of(self, gateway: NamespacedName) -> Mapping[int, int]:
        """By listener port, the TCP port that it is bound to on this machine."""
        assert self._picture is not None
        return {
            key.port: bound[0].port
            for key, bound in self._picture.ports.bindings.items()
            if key.gateway == gateway and key.transport == "tcp"
        }

    def status(self) -> dict[str, Any]:
        """Everything that `gwanmun status` shows, as plain data."""
        envoy = self._envoy.status if self._envoy else None
        return report.status_report(
            self._picture,
            version=self._version,
            envoy=envoy,
            envoy_version=self._binary.version if self._binary else "",
            problems=sorted(self._problems()),
            warnings=self._warnings,
        )

    async def changed(self, after: int) -> None:
        """Return when the state is another than it was at that version of it."""
        while self._version <= after:
            await self._news.wait()

    def envoy_configuration(self, kind: str, name: str) -> dict[str, Any]:
        return report.envoy_configuration(self._picture.translation if self._picture else None, kind=kind, name=name)

    def explain(self, request: Request, served: Served | None) -> dict[str, Any]:
        if self._picture is None:
            raise ValueError("the gateway has not read its manifests yet")
        model = self._picture.resolution.model
        doors = [
            Door(key.gateway, key.port, bound.address, bound.port)
            for key, each in self._picture.ports.bindings.items()
            for bound in each
            if key.transport == "tcp"
        ]
        told = explain(model, request.via(doors), reads_bodies=self.has_module, served=served)
        return explanation_document(told)

    async def _end_envoy(self, error: type[BaseException] | None, *_: object) -> None:
        assert self._envoy is not None
        if error is None or issubclass(error, asyncio.CancelledError):
            unfinished = await self._envoy.stop(self._hurrying)
            if unfinished:
                self._tell(f"{unfinished} requests or connections had not ended and were cut")
        else:
            await self._envoy.leave()  # our own fault takes no traffic away: the next `up` takes Envoy over

    async def _first_served(self) -> None:
        while self._envoy is None:  # noqa: ASYNC110  run() has not come this far
            await asyncio.sleep(0.005)
        await self.serving_after(0)
        await self._envoy.wait_ready()

    def _applied(self) -> int:
        return max((proxy.applied or 0 for proxy in self._publisher.proxies(SCOPE)), default=0)

    async def _follow(self, rundir: RunDir, bound_before: Bindings, kept_before: Kept) -> None:
        """Publish a picture for every change of the manifests."""
        pipeline = Pipeline(
            PipelineOptions(
                settings=self._settings,
                services=self.options.bindings,
                ports=PortOptions(self.options.address, first_unprivileged_port()),
                envoy=Options(
                    module_path=str(self._module.path) if isinstance(self._module, Module) else None,
                    zone=self.options.zone,
                    access_log=str(rundir.path / ACCESS_LOG),
                ),
            ),
            unusable=unusable,
            bound_before=bound_before,
        )
        kept_noted: Kept | None = None
        # The first picture of thousands of routes is all new objects: looking for garbage among them would double its time.
        gc.disable()
        provider = FolderProvider(self.options.paths, kept_before, self._ahead)
        async with contextlib.aclosing(_pictures(provider, pipeline)) as pictures:
            async for changes, picture in pictures:
                self._picture = picture
                self._warnings = frozenset(map(report.problem_line, filter(report.is_warning, changes.problems)))
                self._sources = tuple(report.problem_line(problem) for problem in (*changes.problems, *picture.unbound))
                write_bindings(rundir, picture.ports.bindings)
                if changes.kept != kept_noted:
                    write_kept(rundir, changes.kept)
                    kept_noted = changes.kept
                serial = self._publisher.publish(SCOPE, picture.resources, _changed_names(picture))
                log.debug("xds_published", serial=serial, objects=len(changes.objects))
                self._changed()
                if serial == 1:
                    # What was just built lives long: a collector that looks through it again and again pauses for 0.1 s.
                    # It is not cleaned up before: that takes half a second, and finds some thousand small objects.
                    gc.freeze()
                    gc.enable()

    def _problems(self) -> set[str]:
        lines = set(self._sources)
        if self._picture is not None:
            lines |= self._picture_problems.lines(self._picture)
            if not self._picture.snapshot.objects and not lines:
                lines.add(report.no_manifests(self.options.paths))
        if isinstance(self._module, NoModule):
            lines.add(self._module.reason)
        for proxy in self._publisher.proxies(SCOPE):
            lines |= {report.rejection_line(rejection) for rejection in proxy.rejections}
        if self._envoy is not None and self._envoy.status.problem:
            lines.add(self._envoy.status.problem)
        return lines

    def _changed(self) -> None:
        self._version += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _keep_telling(self, observer: Observer) -> None:
        """Tell the observer what has changed, a moment later: what is on its way to Envoy goes first."""
        told = 0
        while True:
            await self.changed(told)
            await asyncio.sleep(_TELL_AFTER_S)
            told = self._version
            if self._picture is not None:
                observer.addresses(set(report.address_lines(self._picture)))
                observer.problems(self._problems())

    def _local_envoy(self, rundir: RunDir, binary: EnvoyBinary) -> LocalEnvoy:
        return LocalEnvoy(
            rundir,
            binary,
            report=self._envoy_event,
            clock=time.monotonic,
            draw=random.random,
            options=LaunchOptions(
                concurrency=self.options.concurrency, stop_grace=timedelta(seconds=self.options.drain_seconds)
            ),
        )

    def _bootstrap_options(self, rundir: RunDir) -> BootstrapOptions:
        memory = machine_memory()
        return BootstrapOptions(
            node_id=rundir.name,
            admin=rundir.admin_socket,
            xds_socket=rundir.xds_socket,
            zone=self.options.zone or None,
            max_heap_bytes=None if memory is None else machine_heap(memory),
            module=self._module.path if isinstance(self._module, Module) else None,
        )

    def _envoy_event(self, event: Event) -> None:
        self._tell(report.event_line(event))
        self._changed()

    def _tell(self, line: str) -> None:
        if self._observer is not None:
            self._observer.event(line)
        else:
            log.info("gateway", message=line)


async def _pictures(provider: FolderProvider, pipeline: Pipeline) -> AsyncGenerator[tuple[Changes, Picture], None]:
    """A picture for every change; and for a port that is not had, another whenever it has become free, since nobody tells."""
    async with contextlib.aclosing(provider.watch()) as batches:
        changes = await anext(batches)
        picture = pipeline.feed(changes.objects)
        yield changes, picture
        waiting = asyncio.ensure_future(anext(batches))
        try:
            while True:
                again = _PORTS_AGAIN_S if picture.ports.problems else None
                if (await asyncio.wait({waiting}, timeout=again))[0]:
                    changes = waiting.result()
                    waiting = asyncio.ensure_future(anext(batches))
                    picture = pipeline.feed(changes.objects)
                    yield changes, picture
                elif (looked_again := pipeline.feed({})).ports != picture.ports:
                    picture = looked_again
                    yield changes, picture
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


def _changed_names(picture: Picture) -> dict[str, tuple[str, ...]]:
    return {type_url: tuple(names) for type_url, names in picture.translation.changed.items() if names}


def _prepare(options: StandaloneOptions) -> tuple[RunDir, EnvoyBinary]:
    paths = options.paths
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} is not there; name a folder or file of manifests")
    try:
        ipaddress.ip_address(options.address)
    except ValueError:
        raise UserError(f'--address "{options.address}" is not an IP address such as 127.0.0.1') from None
    try:
        return run_directory(paths[0], os.environ), find_envoy()
    except (RunDirError, EnvoyBinaryError) as error:
        raise UserError(str(error)) from None


@contextlib.contextmanager
def _held(rundir: RunDir, stop_grace: float) -> Iterator[None]:
    try:
        lock = Lock(rundir, stop_grace).take()
    except RunDirError as error:
        raise UserError(str(error)) from None
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def _in_background(*works: Any) -> AsyncIterator[list["asyncio.Task[None]"]]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _stop_on_signals(gateway: Standalone) -> None:
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGINT: gateway.request_stop, signal.SIGTERM: gateway.request_stop, signal.SIGHUP: gateway.hang_up}
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        del handlers[signal.SIGHUP]  # nohup: it is meant to outlive its terminal
    for number, handler in handlers.items():
        with contextlib.suppress(ValueError, RuntimeError):  # not the main thread: whoever runs us asks by request_stop
            loop.add_signal_handler(number, handler)


async def end(paths: tuple[Path, ...], tell: Callable[[str], None] = lambda _: None) -> list[str]:
    """End whatever serves these paths; returns what was ended. `tell` is called with what is waited for."""
    try:
        rundir = run_directory(paths[0], os.environ, make=False)
        if not rundir.path.exists():
            return [f"nothing serves {paths[0]}"]
        ended = await down(rundir, tell=tell)
    except RunDirError as error:
        raise UserError(str(error)) from None
    lines = [f"ended Envoy (process {pid})" for pid in ended.envoys]
    if ended.control_plane is not None:
        lines.insert(0, f"ended gwanmun (process {ended.control_plane})")
    return lines or [f"nothing serves {paths[0]}"]

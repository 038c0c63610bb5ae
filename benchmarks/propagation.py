"""How long a change takes until real traffic through the real Envoy shows it, with 10 to 5,000 routes in force.

Every route has a host name of its own. `fed`: the changed object is given to the control plane as an API server's watch
would give it. `file`: a manifest file is replaced under a running `gwanmun up`, so that noticing it (which waits a moment
for bursts of writes), parsing and validating count too. A client in another process asks all the time.
"""

import asyncio
import gc
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import gateway
import manifests
import static_envoy
from figures import Goal, at_most, goals, percentile, table
from machine import cores, free_port
from prober import Prober, Seen, prober

from gwanmun.api import Object
from gwanmun.api.load import load_text
from gwanmun.app.pipeline import Picture, Pipeline, PipelineOptions
from gwanmun.infra.bootstrap import BootstrapOptions, bootstrap
from gwanmun.infra.envoy import Module, find_envoy, place_module
from gwanmun.infra.launch import LaunchOptions
from gwanmun.infra.local import LocalEnvoy
from gwanmun.infra.ports import PortOptions
from gwanmun.infra.rundir import RunDir, run_directory
from gwanmun.names import ObjectKey
from gwanmun.resolve.world import Settings
from gwanmun.resources import key_of
from gwanmun.xds.options import Options
from gwanmun.xds_server.publisher import Publisher
from gwanmun.xds_server.server import XdsServer

SIZES = (10, 100, 1_000, 5_000)
EDITS = {"fed": 40, "file": 12}
GOALS_MS = {"route": 20.0, "weight": 5.0, "endpoint": 5.0}
_SCOPE = "bench"


@dataclass(frozen=True, slots=True)
class Backends:
    """Two of them, told apart by what they answer in x-served-by. Services with an even number are on the first."""

    first: int
    second: int

    def of(self, service: int) -> int:
        return self.second if service % 2 else self.first


@dataclass(frozen=True, slots=True)
class Edit:
    """A manifest that takes another's place, and what shows that it is in force."""

    file: str
    text: str
    host: str
    header: str
    value: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Milliseconds from the change to the answer that shows it; of `fed` ones also those of our own work."""

    total: float
    own: float
    seen: Seen


def run() -> str:
    where = cores()
    rows, found = [], []
    with ExitStack() as stack:
        backends = Backends(free_port(), free_port())
        for port, name in ((backends.first, "first"), (backends.second, "second")):
            stack.enter_context(static_envoy.running(static_envoy.backend(port, name), port, where.rest))
        for size in SIZES:
            fed = asyncio.run(_fed(size, backends))
            filed = _filed(size, backends)
            for way, results in (("fed", fed), ("file", filed)):
                rows += [_row(size, kind, way, taken) for kind, taken in results.items()]
            if size == SIZES[-1]:
                found = list(_goals(size, fed))
                found += list(_no_errors(size, fed, filed))
    return f"{table(_HEADINGS, rows)}\n\n{goals(found)}"


_HEADINGS = ("routes", "change", "way", "p50 ms", "p99 ms", "own work p50 ms", "changes", "asked", "errors")


def _row(size: int, kind: str, way: str, taken: list[Taken]) -> tuple[str, ...]:
    totals = [one.total for one in taken]
    return (
        f"{size:,}",
        kind,
        way,
        f"{percentile(totals, 0.5):.1f}",
        f"{percentile(totals, 0.99):.1f}",
        f"{percentile([one.own for one in taken], 0.5):.1f}" if way == "fed" else "",
        str(len(taken)),
        str(sum(one.seen.asked for one in taken)),
        str(sum(one.seen.errors for one in taken)),
    )


def _goals(size: int, fed: Mapping[str, list[Taken]]) -> Iterator[Goal]:
    for kind, wanted in GOALS_MS.items():
        yield at_most(f"{kind} change at {size:,}, p50", percentile([one.total for one in fed[kind]], 0.5), wanted, " ms")


def _no_errors(size: int, *results: Mapping[str, list[Taken]]) -> Iterator[Goal]:
    errors = sum(one.seen.errors for result in results for taken in result.values() for one in taken)
    yield at_most(f"errors during changes at {size:,}", errors, 0)


def edits(size: int, count: int, backends: Backends) -> Iterator[tuple[str, Edit]]:
    """That many of each kind, on routes all over."""
    draw = random.Random(size)
    chosen = draw.sample(range(size), min(size, count))
    weights: dict[int, int] = {}
    for number in range(count):
        index = chosen[number % len(chosen)]
        weight = weights.get(index, manifests.ALL - 1)
        edition = f"e{number}"
        yield (
            "route",
            Edit(
                f"route-{index}.yaml",
                manifests.route(index, edition=edition, weight=weight),
                manifests.host(index),
                "x-edition",
                edition,
            ),
        )
        weights[index] = manifests.ALL - weight
        service = index if weights[index] > 1 else index + 1
        yield (
            "weight",
            Edit(
                f"route-{index}.yaml",
                manifests.route(index, edition=edition, weight=weights[index]),
                manifests.host(index),
                "x-served-by",
                "second" if service % 2 else "first",
            ),
        )
    watched = next(index for index in range(size) if index not in chosen or weights[index] > 1)
    for number in range(count):
        second = number % 2 == watched % 2
        service = manifests.service_of(watched)
        text = f"{manifests.service(service)}---\n{manifests.slice_of(service, backends.second if second else backends.first)}"
        yield (
            "endpoint",
            Edit(f"10-{service}.yaml", text, manifests.host(watched), "x-served-by", "second" if second else "first"),
        )


def world(port: int, size: int, backends: Backends) -> dict[str, str]:
    """All manifests, by file."""
    files = dict(manifests.world(port, backends.first, size))
    for index in range(1, manifests.SERVICES, 2):
        name = f"service-{index}"
        files[f"10-{name}.yaml"] = f"{manifests.service(name)}---\n{manifests.slice_of(name, backends.second)}"
    return files


# Fed


class _Plane:
    """The control plane without its sources."""

    def __init__(self, rundir: RunDir) -> None:
        module = place_module(rundir)
        envoy = Options(module_path=str(module.path) if isinstance(module, Module) else None)
        options = PipelineOptions(settings=Settings(), services=(), ports=PortOptions("127.0.0.1", 1024), envoy=envoy)
        self._pipeline = Pipeline(options, unusable=lambda _: None, bound_before={})
        self.publisher = Publisher()

    def feed(self, changes: Mapping[ObjectKey, Object | None]) -> Picture:
        picture = self._pipeline.feed(changes)
        changed = {type_url: tuple(names) for type_url, names in picture.translation.changed.items() if names}
        self.publisher.publish(_SCOPE, picture.resources, changed)
        return picture


@asynccontextmanager
async def _plane(files: Mapping[str, str], port: int) -> AsyncIterator[_Plane]:
    with tempfile.TemporaryDirectory(prefix="gwb") as folder:
        rundir = run_directory(Path(folder), {"XDG_RUNTIME_DIR": folder})
        plane = _Plane(rundir)
        server = XdsServer(plane.publisher, lambda _node, _peer: _SCOPE)
        await server.start(f"unix:{rundir.xds_socket}")
        envoy = LocalEnvoy(
            rundir,
            find_envoy(),
            report=lambda _: None,
            clock=time.monotonic,
            draw=random.random,
            options=LaunchOptions(concurrency=1),
        )
        plane.feed({key: found for file, text in files.items() for key, found in objects(text, file).items()})
        gc.collect()
        gc.freeze()
        await envoy.start(bootstrap(BootstrapOptions(rundir.name, rundir.admin_socket, rundir.xds_socket)))
        try:
            await envoy.wait_ready()
            while await asyncio.to_thread(gateway.status, port, host=manifests.host(0)) != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            yield plane
        finally:
            await envoy.stop()
            await server.stop()
            gc.unfreeze()


def objects(text: str, file: str) -> dict[ObjectKey, Object | None]:
    loaded = load_text(text, file)
    assert not loaded.problems, loaded.problems
    return {key_of(one.object): one.object for one in loaded.objects}


async def _fed(size: int, backends: Backends) -> dict[str, list[Taken]]:
    port = free_port()
    taken: dict[str, list[Taken]] = {kind: [] for kind in GOALS_MS}
    async with _plane(world(port, size, backends), port) as plane:
        with prober(port) as client:
            for kind, edit in edits(size, EDITS["fed"], backends):
                changes = objects(edit.text, edit.file)
                await asyncio.to_thread(client.expect, edit.host, edit.header, edit.value)
                begun = time.perf_counter()
                plane.feed(changes)
                own = time.perf_counter() - begun
                seen = await _seen(client)
                taken[kind].append(Taken(1000 * (seen.at - begun), 1000 * own, seen))
    return taken


async def _seen(client: Prober) -> Seen:
    while not client.has_seen:  # noqa: ASYNC110  our control plane has to go on in this loop
        await asyncio.sleep(0.001)
    return client.seen()


# By file


def _filed(size: int, backends: Backends) -> dict[str, list[Taken]]:
    port = free_port()
    taken: dict[str, list[Taken]] = {kind: [] for kind in GOALS_MS}
    with tempfile.TemporaryDirectory(prefix="gwanmun-bench-") as name:
        folder = Path(name)
        for file, text in world(port, size, backends).items():
            (folder / file).write_text(text)
        arguments = ("--concurrency", "1")
        with gateway.serving(folder, port, host=manifests.host(0), arguments=arguments), prober(port) as client:
            for kind, edit in edits(size, EDITS["file"], backends):
                (folder / ".next").write_text(edit.text)
                client.expect(edit.host, edit.header, edit.value)
                begun = time.perf_counter()
                (folder / ".next").replace(folder / edit.file)
                seen = client.seen()
                taken[kind].append(Taken(1000 * (seen.at - begun), 0.0, seen))
    return taken

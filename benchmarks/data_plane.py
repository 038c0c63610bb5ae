"""What a request costs through gwanmun, against a header route of a hand-written static Envoy, in the same run.

Each gateway has one worker, pinned to the same core; load and backend share the other. Rounds alternate between them, so that
whatever else the machine does hits all alike. `ratio` is by requests per second and `cpu ratio` by processor time per request,
both round by round. On a core that has nothing else to do the two say the same. On a machine with other work only the second
means anything, so goals are judged by it. The static Envoy has neither access log nor retries; a second one has them, since
gwanmun always does. All are started several times: two processes with the same configuration differ by up to a tenth for as
long as they live, as where their memory lies decides what the caches hold. How far starts are apart stands beside each ratio.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import bodies
import gateway
import manifests
import static_envoy
from figures import Goal, at_least, goals, middle, spread, table
from loadgen import Measured, Post, generator, measure
from machine import Cores, cores, cpu_seconds, free_port, pin

PATH = "/v1/chat/completions"
STARTS = 6
ROUNDS = 4
SECONDS = 1.0
JSON = (("content-type", "application/json"),)
MODEL = (("x-model-id", bodies.MODEL),)


@dataclass(frozen=True, slots=True)
class Proxy:
    """One that requests are sent through."""

    name: str
    port: int
    pid: int
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured of one proxy. `cpu_us` is the proxy's processor time per request."""

    measured: Measured
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Case:
    """A body, and the goals for gwanmun with the header and without it."""

    name: str
    body: bytes
    connections: int
    header_goal: float | None
    model_goal: float


def cases() -> Sequence[Case]:
    return (
        Case("1 KB prose", bodies.prose(1024), 32, 0.97, 0.88),
        Case("220 KB prose", bodies.prose(220 * 1024), 8, None, 0.80),
        Case("220 KB code", bodies.code(220 * 1024), 8, None, 0.80),
    )


Found = Mapping[str, Sequence[Sequence[Round]]]
"""The rounds of each proxy by its name: those of the first start, of the second, and so on."""


def run() -> str:
    where = cores()
    starts = [_start(where) for _ in range(STARTS)]
    rows, reached = [], []
    for case in cases():
        found = {name: [start[case.name][name] for start in starts] for name in _NAMES}
        rows += list(_rows(case, found))
        reached += list(_goals(case, found))
    notes = (
        f"Load: {generator()}; {STARTS} starts with {ROUNDS} rounds of {SECONDS:g} s each, alternating; one Envoy worker each."
    )
    return f"{notes}\n\n{table(_HEADINGS, rows)}\n\n{goals(reached)}"


_STATIC, _LOGGED, _HEADER, _MODEL = _NAMES = (
    "static Envoy, header",
    "static Envoy, log and retries",
    "gwanmun, header",
    "gwanmun, model in body",
)


def _start(where: Cores) -> Mapping[str, Mapping[str, Sequence[Round]]]:
    """Start all of them and measure each case; rounds by case and proxy."""
    with ExitStack() as stack:
        backend, reference, logging = free_port(), free_port(), free_port()
        stack.enter_context(static_envoy.running(static_envoy.backend(backend), backend, where.rest))
        static_pid = stack.enter_context(
            static_envoy.running(static_envoy.reference(reference, backend), reference, where.gateway)
        )
        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gwanmun-bench-"))) / "log"
        document = static_envoy.reference(logging, backend, access_log=str(log))
        logging_pid = stack.enter_context(static_envoy.running(document, logging, where.gateway))
        port, pid = stack.enter_context(gwanmun(backend, where))
        proxies = (
            Proxy(_STATIC, reference, static_pid, JSON + MODEL),
            Proxy(_LOGGED, logging, logging_pid, JSON + MODEL),
            Proxy(_HEADER, port, pid, JSON + MODEL),
            Proxy(_MODEL, port, pid, JSON),
        )
        return {case.name: interleaved(proxies, case, where) for case in cases()}


_HEADINGS = ("body", "through", "ratio", "cpu ratio", "of starts", "requests/s", "cpu us", "p50 ms", "p99 ms", "failed")


@contextmanager
def gwanmun(backend: int, where: Cores) -> Iterator[tuple[int, int]]:
    """`gwanmun up` with one model route; gives the port and Envoy's process id."""
    port = free_port()
    parts = (
        manifests.gateway(port),
        manifests.service("service-0"),
        manifests.slice_of("service-0", backend),
        manifests.model_route(),
    )
    with tempfile.TemporaryDirectory(prefix="gwanmun-bench-") as folder:
        (Path(folder) / "all.yaml").write_text("---\n".join(parts))
        with gateway.serving(Path(folder), port, host="any.example.com", arguments=("--concurrency", "1")) as up:
            pin(up.envoy_pid, where.gateway)
            yield port, up.envoy_pid


def interleaved(proxies: Sequence[Proxy], case: Case, where: Cores) -> Mapping[str, Sequence[Round]]:
    """The rounds of every proxy by its name; in each round all of them, every other time in reverse."""
    found: dict[str, list[Round]] = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        _once(proxy, case, 1.0, where)  # connections to the backend, and whatever is made at the first request
    for number in range(ROUNDS):
        for proxy in proxies if number % 2 else reversed(proxies):
            found[proxy.name].append(_once(proxy, case, SECONDS, where))
    return found


def _once(proxy: Proxy, case: Case, seconds: float, where: Cores) -> Round:
    before = cpu_seconds(proxy.pid)
    post = Post(proxy.port, PATH, proxy.headers, case.body)
    measured = measure(post, seconds=seconds, connections=case.connections, core=where.rest)
    return Round(measured, 1e6 * (cpu_seconds(proxy.pid) - before) / max(1, measured.requests))


def ratios(of: Sequence[Round], to: Sequence[Round]) -> list[float]:
    """By requests per second, round by round."""
    return [one.measured.per_second / other.measured.per_second for one, other in zip(of, to, strict=True)]


def cpu_ratios(of: Sequence[Round], to: Sequence[Round]) -> list[float]:
    """How much of the other's processor time per request this one takes, turned round: less than 1 is dearer. Round by round,
    since a machine changes its pace within seconds."""
    return [other.cpu_us / one.cpu_us for one, other in zip(of, to, strict=True)]


def cpu_ratio(of: Sequence[Sequence[Round]], to: Sequence[Sequence[Round]]) -> float:
    """That of the median start."""
    return middle(_by_start(of, to))


def _by_start(of: Sequence[Sequence[Round]], to: Sequence[Sequence[Round]]) -> list[float]:
    return [middle(cpu_ratios(one, other)) for one, other in zip(of, to, strict=True)]


def _rows(case: Case, found: Found) -> Iterator[tuple[str, ...]]:
    static = found[_STATIC]
    for name, starts in found.items():
        own = list(chain.from_iterable(starts))

        def of(read: Callable[[Measured], float], own: Sequence[Round] = own) -> float:
            return middle(read(one.measured) for one in own)

        yield (
            case.name,
            name,
            f"{middle(ratios(own, list(chain.from_iterable(static)))):.3f}",
            f"{cpu_ratio(starts, static):.3f}",
            spread(_by_start(starts, static)),
            f"{of(lambda one: one.per_second):,.0f}",
            f"{middle(one.cpu_us for one in own):.1f}",
            f"{of(lambda one: one.p50_ms):.2f}",
            f"{of(lambda one: one.p99_ms):.2f}",
            str(sum(one.measured.failed for one in own)),
        )


def _goals(case: Case, found: Found) -> Iterator[Goal]:
    if case.header_goal is not None:
        yield at_least(f"header route, {case.name}", cpu_ratio(found[_HEADER], found[_STATIC]), case.header_goal)
    yield at_least(f"model in body, {case.name}", cpu_ratio(found[_MODEL], found[_STATIC]), case.model_goal)

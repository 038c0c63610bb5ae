"""What a request costs through gwanmun, against a header route of a hand-written static Envoy, in the same run.

Each gateway has one worker, pinned to the same core; load and backend share the other. Rounds alternate between them, so that
whatever else the machine does hits all alike. `ratio` is by requests per second and `cpu ratio` by processor time per request,
both round by round. On a core that has nothing else to do the two say the same. On a machine with other work only the second
means anything, so goals are judged by it. The static Envoy has neither access log nor retries; a second one has them, since
gwanmun always does.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import bodies
import gateway
import manifests
import static_envoy
from figures import Goal, at_least, goals, middle, spread, table
from loadgen import Measured, Post, generator, measure
from machine import Cores, cores, cpu_seconds, free_port, pin

PATH = "/v1/chat/completions"
ROUNDS = 20
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


def run() -> str:
    where = cores()
    with ExitStack() as stack:
        backend, reference = free_port(), free_port()
        stack.enter_context(static_envoy.running(static_envoy.backend(backend), backend, where.rest))
        static_pid = stack.enter_context(
            static_envoy.running(static_envoy.reference(reference, backend), reference, where.gateway)
        )
        logging, log = free_port(), Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gwanmun-bench-"))) / "log"
        document = static_envoy.reference(logging, backend, access_log=str(log))
        logging_pid = stack.enter_context(static_envoy.running(document, logging, where.gateway))
        port, pid = stack.enter_context(gwanmun(backend, where))
        static = Proxy("static Envoy, header", reference, static_pid, JSON + MODEL)
        logged = Proxy("static Envoy, log and retries", logging, logging_pid, JSON + MODEL)
        header = Proxy("gwanmun, header", port, pid, JSON + MODEL)
        model = Proxy("gwanmun, model in body", port, pid, JSON)
        rows, found = [], []
        for case in cases():
            rounds = interleaved((static, logged, header, model), case, where)
            rows += list(_rows(case, rounds, static))
            found += list(_goals(case, rounds, static, header, model))
    notes = f"Load: {generator()}; {ROUNDS} rounds of {SECONDS:g} s each, alternating; one Envoy worker each."
    return f"{notes}\n\n{table(_HEADINGS, rows)}\n\n{goals(found)}"


_HEADINGS = ("body", "through", "ratio", "lowest-highest", "cpu ratio", "requests/s", "cpu us", "p50 ms", "p99 ms", "failed")


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


def interleaved(proxies: Sequence[Proxy], case: Case, where: Cores) -> Mapping[Proxy, Sequence[Round]]:
    """The rounds of every proxy; in each round all of them, every other time in reverse."""
    found: dict[Proxy, list[Round]] = {proxy: [] for proxy in proxies}
    for proxy in proxies:
        _once(proxy, case, 1.0, where)  # connections to the backend, and whatever is made at the first request
    for number in range(ROUNDS):
        for proxy in proxies if number % 2 else reversed(proxies):
            found[proxy].append(_once(proxy, case, SECONDS, where))
    return found


def _once(proxy: Proxy, case: Case, seconds: float, where: Cores) -> Round:
    before = cpu_seconds(proxy.pid)
    post = Post(proxy.port, PATH, proxy.headers, case.body)
    measured = measure(post, seconds=seconds, connections=case.connections, core=where.rest)
    return Round(measured, 1e6 * (cpu_seconds(proxy.pid) - before) / max(1, measured.requests))


def ratios(of: Sequence[Round], to: Sequence[Round]) -> list[float]:
    """By requests per second, round by round."""
    return [one.measured.per_second / other.measured.per_second for one, other in zip(of, to, strict=True)]


def _rows(case: Case, rounds: Mapping[Proxy, Sequence[Round]], static: Proxy) -> Iterator[tuple[str, ...]]:
    for proxy, own in rounds.items():
        found = ratios(own, rounds[static])
        cpu = middle(one.cpu_us for one in own)

        def of(read: Callable[[Measured], float], own: Sequence[Round] = own) -> float:
            return middle(read(one.measured) for one in own)

        yield (
            case.name,
            proxy.name,
            f"{middle(found):.3f}",
            spread(found),
            f"{cpu_ratio(own, rounds[static]):.3f}",
            f"{of(lambda one: one.per_second):,.0f}",
            f"{cpu:.1f}",
            f"{of(lambda one: one.p50_ms):.2f}",
            f"{of(lambda one: one.p99_ms):.2f}",
            str(sum(one.measured.failed for one in own)),
        )


def cpu_ratio(of: Sequence[Round], to: Sequence[Round]) -> float:
    """How much of the other's processor time per request this one takes, turned round: less than 1 is dearer. Round by round,
    since a machine changes its pace within seconds."""
    return middle(other.cpu_us / one.cpu_us for one, other in zip(of, to, strict=True))


def _goals(case: Case, rounds: Mapping[Proxy, Sequence[Round]], static: Proxy, header: Proxy, model: Proxy) -> Iterator[Goal]:
    if case.header_goal is not None:
        yield at_least(f"header route, {case.name}", cpu_ratio(rounds[header], rounds[static]), case.header_goal)
    yield at_least(f"model in body, {case.name}", cpu_ratio(rounds[model], rounds[static]), case.model_goal)

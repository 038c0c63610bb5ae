"""The body-model route beside other gateways: LiteLLM's proxy and vllm-router, the same request to the same backend.

All gateways on the same core, in alternating rounds. Goals are judged by processor time per request, which is what is left of
the difference on a machine that has other work to do. A peer is measured where its program is on PATH, or named by the
environment (LITELLM, VLLM_ROUTER); each is best installed into a virtual environment of its own:

    uv venv peers/litellm && uv pip install --python peers/litellm "litellm[proxy]"
    uv venv peers/vllm-router && uv pip install --python peers/vllm-router vllm-router
"""

import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import bodies
import data_plane
import static_envoy
from data_plane import JSON, PATH, Proxy
from figures import Goal, at_least, goals, middle, spread, table
from loadgen import Post, measure
from machine import Cores, cores, cpu_seconds, free_port, pinned, resident_mib

ROUNDS = 5
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Peer:
    """`line` gives its command line for the program, its port, the backend's and a folder for its files."""

    name: str
    variable: str
    program: str
    distribution: str
    line: Callable[[str, int, int, Path], list[str]]
    goal: float

    @property
    def found(self) -> str | None:
        return os.environ.get(self.variable) or shutil.which(self.program)


def _litellm(program: str, port: int, backend: int, folder: Path) -> list[str]:
    parameters = {"model": f"openai/{bodies.MODEL}", "api_base": f"http://127.0.0.1:{backend}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": bodies.MODEL, "litellm_params": parameters}]}
    (folder / "litellm.yaml").write_text(json.dumps(config))
    line = [program, "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    return [*line, "--num_workers", "1", "--telemetry", "False"]


def _vllm_router(program: str, port: int, backend: int, _: Path) -> list[str]:
    line = [program, "--host", "127.0.0.1", "--port", str(port), "--worker-urls", f"http://127.0.0.1:{backend}"]
    return [*line, "--policy", "round_robin", "--prometheus-port", str(free_port()), "--log-level", "error"]


PEERS: Sequence[Peer] = (
    Peer("LiteLLM", "LITELLM", "litellm", "litellm", _litellm, 100),
    Peer("vllm-router", "VLLM_ROUTER", "vllm-router", "vllm-router", _vllm_router, 1),
)


def run() -> str:
    where = cores()
    found = [peer for peer in PEERS if peer.found]
    absent = [f"{peer.name} is not installed: not measured." for peer in PEERS if not peer.found]
    if not found:
        return "\n".join(absent)
    with ExitStack() as stack:
        backend = free_port()
        stack.enter_context(static_envoy.running(static_envoy.backend(backend), backend, where.rest))
        port, pid = stack.enter_context(data_plane.gwanmun(backend, where))
        others = [stack.enter_context(_running(peer, backend, where)) for peer in found]
        proxies = [Proxy("gwanmun", port, pid, JSON), *others]
        rates: dict[Proxy, list[float]] = {proxy: [] for proxy in proxies}
        costs: dict[Proxy, list[float]] = {proxy: [] for proxy in proxies}
        latencies: dict[Proxy, list[float]] = {proxy: [] for proxy in proxies}
        failed = dict.fromkeys(proxies, 0)
        for _ in range(ROUNDS):
            for proxy in proxies:
                before = cpu_seconds(proxy.pid)
                one = measure(_post(proxy), seconds=data_plane.SECONDS, connections=32, core=where.rest)
                costs[proxy].append(1e6 * (cpu_seconds(proxy.pid) - before) / max(1, one.requests))
                rates[proxy].append(one.per_second)
                latencies[proxy].append(one.p50_ms)
                failed[proxy] += one.failed
        rows = [
            (
                proxy.name,
                f"{middle(rates[proxy]):,.0f}",
                spread(rates[proxy], 0),
                f"{middle(costs[proxy]):,.0f}",
                f"{middle(latencies[proxy]):.1f}",
                f"{resident_mib(proxy.pid):.0f}",
                str(failed[proxy]),
            )
            for proxy in proxies
        ]
        judged = list(_goals(found, proxies, costs))
    headings = ("gateway", "requests/s", "lowest-highest", "cpu us", "p50 ms", "MiB", "failed")
    return "\n\n".join((*absent, table(headings, rows), goals(judged)))


def _goals(found: Sequence[Peer], proxies: Sequence[Proxy], costs: dict[Proxy, list[float]]) -> Iterator[Goal]:
    for peer, proxy in zip(found, proxies[1:], strict=True):
        yield at_least(f"times as cheap as {peer.name}", middle(costs[proxy]) / middle(costs[proxies[0]]), peer.goal)


def _post(proxy: Proxy) -> Post:
    return Post(proxy.port, PATH, proxy.headers, bodies.prose(1024))


@contextmanager
def _running(peer: Peer, backend: int, where: Cores) -> Iterator[Proxy]:
    program = peer.found
    assert program is not None
    port = free_port()
    settings = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask its makers' server for prices otherwise
        # None of the gateways here checks keys, and all are on loopback.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    with tempfile.TemporaryDirectory(prefix="gwanmun-bench-") as folder:
        line = [*pinned(where.gateway), *peer.line(program, port, backend, Path(folder))]
        log = Path(folder) / "log"
        with log.open("wb") as said:
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=folder, env={**os.environ, **settings}
            )
        try:
            proxy = Proxy(f"{peer.name} {_version(program, peer)}", port, process.pid, JSON)
            _await_answer(proxy, process, log)
            yield proxy
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_answer(proxy: Proxy, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + _PATIENCE_S
    while _status(proxy) != 200:
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{proxy.name} does not serve:\n{log.read_text()[-4000:]}")
        time.sleep(0.2)


def _status(proxy: Proxy) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    try:
        connection.request("POST", PATH, _post(proxy).body, dict(proxy.headers))
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def _version(program: str, peer: Peer) -> str:
    """Of the distribution beside the program."""
    name = "[-_]".join(map(re.escape, peer.distribution.split("-")))
    pattern = re.compile(rf"{name}-([0-9][^-]*)\.dist-info$")
    for folder in Path(program).resolve().parent.parent.glob("lib/python*/site-packages/*.dist-info"):
        if found := pattern.match(folder.name):
            return found[1]
    return ""

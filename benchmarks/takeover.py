"""The control plane is killed for a minute under load, and comes back: how many requests fail, how many connections are lost?

Eight keep-alive connections ask all the time. `gwanmun up` is killed outright (SIGKILL); after a minute the next one takes
the Envoy over, and a route that was edited meanwhile comes into force on the same connections.
"""

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import gateway
import manifests
import static_envoy
from figures import Goal, at_most, goals, percentile, table
from machine import cores, free_port

from gwanmun.sim.load import Load, Tally, Target, http_request

ROUTES = 100
AWAY_S = 60.0
CONNECTIONS = 8


def run() -> str:
    with ExitStack() as stack:
        backend, port = free_port(), free_port()
        stack.enter_context(static_envoy.running(static_envoy.backend(backend), backend, cores().rest))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gwanmun-bench-")))
        runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gwb")))
        for name, text in manifests.world(port, backend, ROUTES):
            (folder / name).write_text(text)
        arguments = ("--concurrency", "1")
        up = gateway.start(folder, runtime, arguments)
        stack.callback(gateway.down, folder, runtime)
        gateway.await_answer(up, port, host=manifests.host(0))
        return asyncio.run(_killed_and_back(up, port, arguments))


async def _killed_and_back(up: gateway.Up, port: int, arguments: tuple[str, ...]) -> str:
    envoy = up.envoy_pid
    target = Target("127.0.0.1", port, http_request("POST", manifests.host(0), "/", b'{"model": "gpt-4"}'))
    async with Load(target, connections=CONNECTIONS) as tally:
        await asyncio.sleep(2)
        begun = time.monotonic()
        up.process.kill()
        up.process.wait()
        (up.folder / "route-0.yaml").write_text(manifests.route(0, edition="while away"))
        await asyncio.sleep(AWAY_S)
        away = time.monotonic() - begun
        answered_away = tally.answered
        back = gateway.start(up.folder, up.runtime, arguments)
        await asyncio.to_thread(_await_edition, port)
        took = time.perf_counter() - back.started
        await asyncio.sleep(2)
    back_pid = back.envoy_pid
    rows = (
        ("away, s", f"{away:.0f}"),
        ("requests meanwhile", f"{answered_away:,}"),
        ("requests in all", f"{tally.answered:,}"),
        ("p99 ms", f"{1000 * percentile(tally.latencies, 0.99):.2f}"),
        ("seconds from the new `up` to the edit served", f"{took:.2f}"),
        ("what failed", ", ".join(f"{what}: {count}" for what, count in tally.failures.items()) or "nothing"),
    )
    return f"{table(('', ''), rows)}\n\n{goals(_goals(tally, same=back_pid == envoy))}"


def _goals(tally: Tally, *, same: bool) -> tuple[Goal, ...]:
    return (
        at_most("failed requests", tally.failed, 0),
        at_most("connections beyond the first ones", tally.connections - CONNECTIONS, 0),
        Goal("the same Envoy goes on", "yes", "yes" if same else "no", same),
    )


def _await_edition(port: int) -> None:
    while gateway.header(port, host=manifests.host(0), name="x-edition") != "while away":
        time.sleep(0.01)

"""Load: as many requests as a server takes, on a fixed number of connections.

wrk where it is installed (`apt-get install wrk`); otherwise the package's own generator in a process of its own, which is
slower than Envoy: then the generator is the limit, and ratios come out too near to 1.
"""

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from machine import pinned

WRK = shutil.which("wrk")

_SCRIPT = """
local file = io.open(%(body)s, "rb")
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
%(headers)s
function done(summary, latency, requests)
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Post:
    """A POST to a port of 127.0.0.1."""

    port: int
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Measured:
    """`failed` are answers other than 2xx and 3xx, and connections lost. Latencies are in milliseconds."""

    requests: int
    seconds: float
    failed: int
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def generator() -> str:
    """Which one is used, and what to do for the better one."""
    return "wrk" if WRK else "the built-in generator, which is itself the limit (apt-get install wrk for real figures)"


def measure(post: Post, *, seconds: float, connections: int, core: int | None) -> Measured:
    """Ask for that long."""
    return _wrk(post, seconds, connections, core) if WRK else _own(post, seconds, connections, core)


def _wrk(post: Post, seconds: float, connections: int, core: int | None) -> Measured:
    with tempfile.TemporaryDirectory(prefix="gwanmun-bench-") as folder:
        body, script = Path(folder) / "body", Path(folder) / "post.lua"
        body.write_bytes(post.body)
        headers = "\n".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in post.headers)
        script.write_text(_SCRIPT % {"body": json.dumps(str(body)), "headers": headers})
        line = [*pinned(core), "wrk", "--threads", "1", "--connections", str(connections)]
        line += ["--duration", f"{max(1, round(seconds))}s", "--timeout", "10s", "--script", str(script)]
        said = subprocess.run(
            [*line, f"http://127.0.0.1:{post.port}{post.path}"], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", said, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk said something else than expected: {said}")
    requests, micros, failed, p50, p99 = map(int, found.groups())
    return Measured(requests, micros / 1e6, failed, p50 / 1000, p99 / 1000)


def _own(post: Post, seconds: float, connections: int, core: int | None) -> Measured:
    work = {
        "port": post.port,
        "path": post.path,
        "headers": post.headers,
        "body": post.body.decode(),
        "seconds": seconds,
        "connections": connections,
    }
    line = [*pinned(core), sys.executable, __file__]
    said = subprocess.run(line, input=json.dumps(work), capture_output=True, text=True, check=True).stdout
    return Measured(**json.loads(said))


async def _ask(work: dict[str, object]) -> Measured:
    from gwanmun.sim.load import Load, Target, http_request

    headers = tuple((name, value) for name, value in work["headers"] if name not in ("host", "content-type"))
    host = dict(work["headers"]).get("host", "127.0.0.1")
    request = http_request("POST", host, work["path"], work["body"].encode(), headers)
    async with Load(Target("127.0.0.1", work["port"], request), connections=work["connections"]) as tally:
        await asyncio.sleep(work["seconds"])
        answered, failed, latencies = tally.answered, tally.failed, sorted(tally.latencies)
    p50, p99 = (1000 * latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
    return Measured(answered, work["seconds"], failed, p50, p99)


if __name__ == "__main__":
    measured = asyncio.run(_ask(json.load(sys.stdin)))
    print(json.dumps({name: getattr(measured, name) for name in Measured.__slots__}))

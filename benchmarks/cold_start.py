"""From `gwanmun up` to the last of 5,000 routes being served, and the memory of it.

One file for each route, 20 shared backends; nothing is cached from before but Python's byte code and the system's files. The
steps are measured apart, in a process that does them one after the other; `up` reads on other cores while it is imported.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gateway
import manifests
import static_envoy
from figures import at_most, goals, middle, table
from machine import cores, cpu_seconds, free_port, resident_mib

ROUTES = 5_000
STARTS = 3
_GOAL_S = 5.0
_GOAL_MIB = 250.0


def run() -> str:
    backend, where = free_port(), cores()
    with (
        static_envoy.running(static_envoy.backend(backend), backend, where.rest),
        tempfile.TemporaryDirectory(prefix="gwanmun-bench-") as folder,
    ):
        port = free_port()
        for name, text in manifests.world(port, backend, ROUTES):
            (Path(folder) / name).write_text(text)
        starts = [_start(Path(folder), port) for _ in range(STARTS)]
        steps = _steps(folder)
    seconds, ours, envoy, busy = (middle(values) for values in zip(*starts, strict=True))
    rows = [(step, f"{took:.2f}") for step, took in steps.items()]
    return "\n\n".join(
        (
            f"{STARTS} starts: {', '.join(f'{one[0]:.2f} s' for one in starts)}, of which the control plane was on a "
            f"processor for {busy:.2f} s (the rest is Envoy's work, and waiting for a core). Envoy has "
            f"{envoy:.0f} MiB (one worker).",
            table(("step", "seconds"), rows),
            goals(
                (
                    at_most(f"cold start with {ROUTES:,} routes", seconds, _GOAL_S, " s"),
                    at_most("memory of the control plane", ours, _GOAL_MIB, " MiB"),
                )
            ),
        )
    )


def _start(folder: Path, port: int) -> tuple[float, float, float, float]:
    """Seconds until the last route is served, MiB of the control plane and of Envoy then, and the control plane's processor
    seconds."""
    last = manifests.host(ROUTES - 1)
    with gateway.serving(folder, port, host=last, arguments=("--concurrency", "1")) as up:
        return up.served_after, resident_mib(up.pid), resident_mib(up.envoy_pid), cpu_seconds(up.pid)


def _steps(folder: str) -> dict[str, float]:
    command, env = [sys.executable, __file__, folder], gateway.keeping_byte_code()
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    steps: dict[str, float] = json.loads(said)
    return steps


def _measure_steps(folder: str) -> dict[str, float]:
    """What `up` does before Envoy has its configuration, without Envoy."""
    steps: dict[str, float] = {}
    begun = time.perf_counter()

    def done(step: str) -> None:
        nonlocal begun
        steps[step] = time.perf_counter() - begun
        begun = time.perf_counter()

    import gc

    from gwanmun.app import standalone
    from gwanmun.app.pipeline import envoy_bindings
    from gwanmun.infra.ports import PortOptions, plan_ports
    from gwanmun.providers import FolderProvider
    from gwanmun.resolve.model import Resolver
    from gwanmun.resolve.world import Settings
    from gwanmun.resources import Snapshot
    from gwanmun.xds.options import Options
    from gwanmun.xds.translate import translate

    assert standalone
    gc.disable()
    done("import")
    changes = FolderProvider((Path(folder),)).scan()
    done("read, parse, validate")
    snapshot, changed = Snapshot().apply(changes.objects)
    done("snapshot")
    model = Resolver(Settings()).update(snapshot, changed).model
    done("resolve")
    plan = plan_ports(model.gateways.values(), options=PortOptions("127.0.0.1", 1024), previous={}, unusable=lambda _: None)
    translate(model, Options(bindings=envoy_bindings(plan)))
    done("translate")
    return steps


if __name__ == "__main__":
    print(json.dumps(_measure_steps(sys.argv[1])))

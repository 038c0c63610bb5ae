"""`python -m conformance [options] [-- CONTROLLER COMMAND ...]`: a cluster, the controller in it, the suite, a report.

Written to the output folder: report.yaml (the form that upstream publishes), suite.log, controller.log and
cluster/, the logs of the cluster's parts and pods. Exit status 0 when every test that ran has passed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.kubernetes.cluster import Cluster, ClusterError, ClusterOptions

from .results import Collector, table

HERE = Path(__file__).parent
ROOT = HERE.parent
PROFILES = ("HTTP", "GRPC", "TLS", "TCP", "UDP")
CLASS = "gwanmun"
_ACCEPT_WITHIN = 30.0
# For GatewayStaticAddresses: one that the cluster's load balancer can hand out and one that it can not.
_USABLE, _UNUSABLE = "10.98.200.1", "192.0.2.1"


def main() -> int:
    """Exit status: 0 all passed, 1 something failed or could not start."""
    arguments = _parse()
    arguments.output = arguments.output.resolve()
    shutil.rmtree(arguments.output, ignore_errors=True)
    arguments.output.mkdir(parents=True)
    try:
        return asyncio.run(_run(arguments))
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("--profiles", default=",".join(PROFILES), help="of %(default)s; none ('') runs by features alone")
    parser.add_argument("--run-test", default="", metavar="NAME", help="one test instead of all")
    parser.add_argument("--skip-tests", default="", metavar="NAMES", help="comma-separated")
    parser.add_argument("--features", default="", help="comma-separated; default: what the GatewayClass says in its status")
    parser.add_argument("--gateway-class", type=Path, default=HERE / "gatewayclass.yaml", help="a manifest with class gwanmun")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "conformance", help="folder; default: %(default)s")
    parser.add_argument("--cluster", metavar="NAME", help="in this running cluster, which stays; without, in one of its own")
    parser.add_argument("--no-controller", action="store_true", help="it runs already, or there is to be none")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    parser.add_argument("--suite-flag", action="append", default=[], help="passed on as it is, such as -debug; repeatable")
    parser.add_argument("--timeout", default="60m", help="for the whole suite; default: %(default)s")
    parser.add_argument("controller", nargs="*", metavar="COMMAND", help="the controller; default: gwanmun controller")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> int:
    output: Path = arguments.output
    async with _cluster(arguments.cluster) as cluster:
        try:
            await cluster.kubectl("apply", "--server-side", *_own_crds())
            await cluster.kubectl("apply", "-f", str(arguments.gateway_class))
            async with _controller(cluster, arguments, output):
                return await _run_suite(cluster, arguments, output)
        finally:
            shutil.copytree(cluster.state / "logs", output / "cluster")


@contextlib.asynccontextmanager
async def _cluster(name: str | None) -> AsyncIterator[Cluster]:
    if name is not None:
        yield Cluster(name)
        return
    async with Cluster(options=ClusterOptions()) as cluster:
        yield cluster


def _own_crds() -> list[str]:
    """Those that the suite's cluster does not bring: ours and InferencePool."""
    folder = ROOT / "src" / "gwanmun" / "api" / "crds"
    return [f"--filename={path}" for path in sorted(folder.glob("*.yaml")) if not path.name.startswith("gateway.networking")]


@contextlib.asynccontextmanager
async def _controller(cluster: Cluster, arguments: argparse.Namespace, output: Path) -> AsyncIterator[None]:
    if arguments.no_controller:
        yield
        return
    command = arguments.controller or _our_controller(cluster)
    with (output / "controller.log").open("wb") as log:
        process = await cluster.start_process(*command, stdout=log, stderr=log)
        try:
            await _until_accepted(cluster, process)
            yield
            if process.returncode is not None:
                print(f"the controller ended during the run with status {process.returncode}; see {output / 'controller.log'}")
        finally:
            if process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(10):
                        await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()


def _our_controller(cluster: Cluster) -> list[str]:
    program = str(Path(sys.executable).parent / "gwanmun")
    # It runs beside the pods, not behind a Service: its proxies have to be told where.
    return [program, "controller", f"--xds-address={cluster.host_address}:18000"]


async def _until_accepted(cluster: Cluster, process: asyncio.subprocess.Process) -> None:
    """The suite reads the class's supportedFeatures once, at its start, so they must be there."""

    async def accepted() -> bool:
        if process.returncode is not None:
            return True
        found = await cluster.get("gatewayclass", CLASS)
        conditions = (found.get("status") or {}).get("conditions") or []
        return any(c["type"] == "Accepted" and c["status"] == "True" for c in conditions)

    await cluster.eventually(f"GatewayClass {CLASS} is accepted by the controller", accepted, within=_ACCEPT_WITHIN)
    if process.returncode is not None:
        raise ClusterError(f"the controller ended with status {process.returncode} before it accepted GatewayClass {CLASS}")


async def _run_suite(cluster: Cluster, arguments: argparse.Namespace, output: Path) -> int:
    pipe = asyncio.subprocess.PIPE
    process = await cluster.start_process(
        str(cluster.programs / "conformance.test"),
        *_flags(arguments, output / "report.yaml"),
        stdout=pipe,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**24,  # one line may carry a whole object
    )
    assert process.stdout is not None
    collector = Collector()
    with (output / "suite.log").open("wb") as log:
        async for line in process.stdout:
            log.write(line)
            result = collector.receive(line.decode(errors="replace"))
            if result is not None and result.verdict != "SKIP":
                print(f"{result.verdict}  {result.seconds:6.1f} s  {result.name}", flush=True)
    status = await process.wait()
    print(f"\n{table(collector.results.values())}")
    if status != 0 and all(result.verdict in ("PASS", "SKIP") for result in collector.results.values()):
        print("\n".join(["the suite itself failed; its last words:", *collector.outside()]))
    print(f"report, logs of suite, controller and pods: {output}")
    return 0 if status == 0 else 1


def _flags(arguments: argparse.Namespace, report: Path) -> list[str]:
    """Options as the suite's own flags. https://gateway-api.sigs.k8s.io/concepts/conformance/"""
    profiles = ",".join(f"GATEWAY-{name}" for name in arguments.profiles.split(",") if name)
    optional = {
        "conformance-profiles": profiles,
        "run-test": arguments.run_test,
        "skip-tests": arguments.skip_tests,
        "supported-features": arguments.features,
    }
    return [
        "-test.v",
        f"-test.timeout={arguments.timeout}",
        f"-gateway-class={CLASS}",
        f"-report-output={report}",
        "-organization=gwanmun",
        "-project=gwanmun",
        "-url=https://gwanmun.dev",
        f"-version=v{_version()}",
        "-contact=@gwanmun/maintainers",
        f"-usable-address={_USABLE}",
        f"-unusable-address={_UNUSABLE}",
        *(f"-{name}={value}" for name, value in optional.items() if value),
        *(["-fail-fast"] if arguments.fail_fast else []),
        *arguments.suite_flag,
    ]


def _version() -> str:
    try:
        return version("gwanmun")
    except PackageNotFoundError:
        return "0.0.0"


if __name__ == "__main__":
    sys.exit(main())

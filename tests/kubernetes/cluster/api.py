"""What tests use: a cluster that is up inside `async with`, and ways to act in it.

async with Cluster() as cluster:
    await cluster.kubectl("apply", "-f", "-", stdin=manifest)
    with cluster.network():
        answer = httpx.get(f"http://{address}/")
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import build, state
from .kube import Kube
from .namespaces import CLONE_NEWNET, setns
from .network import HOST_ADDRESS

_PACKAGE = __package__ or ""
ROOT = Path(__file__).resolve().parents[_PACKAGE.count(".") + 1]
_numbers = itertools.count(1)


class ClusterError(Exception):
    """The cluster did not come up, is not there, or a command in it failed; the text says why."""


@dataclass(frozen=True)
class ClusterOptions:
    """`nodes` are dealt out over three zones; `images` adds to or overrides images.yaml (same form); `crds`: Gateway API's.

    `zone_delay`, in seconds and one way, is put between pods of different zones; `Cluster.crossed` then counts their traffic.
    """

    nodes: int = 6
    images: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    crds: bool = True
    zone_delay: float | None = None


class Cluster:
    """One cluster. Inside `async with` it is up; left, by whatever way, everything of it is gone but `keep_logs` says else."""

    def __init__(self, name: str | None = None, options: ClusterOptions | None = None) -> None:
        self.name = name or f"test-{os.getpid()}-{next(_numbers)}"
        self.options = options or ClusterOptions()
        self.state = state.base() / self.name
        self._supervisor: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Cluster:
        await self.start(with_parent=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def kubeconfig(self) -> Path:
        """Of an administrator. Its address is reachable inside the cluster only: see `start_process` and `network`."""
        return self.state / "pki" / "admin.kubeconfig"

    @property
    def programs(self) -> Path:
        """The folder with kubectl, helm, echo-basic, conformance.test, crds/ ..."""
        return Path(json.loads((self.state / "options.json").read_text())["programs"])

    @property
    def host_address(self) -> str:
        """Where pods reach what `start_process` runs."""
        return HOST_ADDRESS

    async def start(self, *, with_parent: bool) -> None:
        """Builds the programs if need be and starts; about 8 s. With `with_parent` it ends at the latest with this process."""
        programs = await asyncio.to_thread(build.build)
        state.remove_dead()
        if self.state.exists():
            raise ClusterError(f"there is a cluster {self.name!r} already; `down {self.name}` removes it")
        state.base().mkdir(mode=0o700, exist_ok=True)  # it will hold an administrator's key
        (self.state / "logs").mkdir(parents=True)
        options = {"programs": str(programs), "nodes": self.options.nodes, "crds": self.options.crds}
        options["zone_delay"] = self.options.zone_delay
        (self.state / "options.json").write_text(json.dumps(options | {"images": dict(self.options.images)}))
        with (self.state / "logs" / "supervisor.log").open("wb") as log:
            self._supervisor = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"{_PACKAGE}.supervisor",
                str(self.state),
                *(["--with-parent"] if with_parent else []),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        try:
            await self._until_ready(self._supervisor)
        except BaseException:
            await self.stop()
            raise

    async def _until_ready(self, supervisor: asyncio.subprocess.Process) -> None:
        while not (self.state / "ready").exists():
            if supervisor.returncode is not None:
                failed, log = self.state / "failed", self.state / "logs" / "supervisor.log"
                raise ClusterError((failed if failed.exists() else log).read_text())
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Ends all of it: pods get SIGTERM and two seconds, then everything is killed and the state folder removed."""
        init = state.read_init(self.state)
        if init is not None and init.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(init.pid, signal.SIGTERM)
            await asyncio.to_thread(state.wait_for_end, init, 5.0)
        await asyncio.to_thread(state.remove, self.state)
        if self._supervisor is not None:
            await self._supervisor.wait()
            self._supervisor = None

    def client(self) -> Kube:
        """A client of the API server; create and use it inside `with cluster.network()`."""
        return Kube(self.state / "pki", "admin")

    def crossed(self) -> dict[str, int]:
        """Bytes from one zone's pods to another's since the start, such as {"zone-a>zone-b": 5120}; needs `zone_delay`."""
        found: dict[str, int] = json.loads((self.state / "crossed.json").read_text())
        return found

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Inside, sockets that the calling thread makes belong to the cluster; those made before keep their network."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        setns(f"/proc/{self.init().pid}/ns/net", CLONE_NEWNET)
        try:
            yield
        finally:
            setns(f"/proc/self/fd/{home}", CLONE_NEWNET)
            os.close(home)

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs `arguments` inside the cluster; the process becomes that program, signals and all."""
        script = Path(__file__).with_name("namespaces.py")
        return [sys.executable, "-S", "-E", str(script), "enter", str(self.init().pid), "--with-parent", "--", *arguments]

    def environment(self) -> dict[str, str]:
        """This process's environment, with KUBECONFIG and the cluster's programs first on PATH."""
        path = f"{self.programs}{os.pathsep}{os.environ.get('PATH', '')}"
        return dict(os.environ) | {"KUBECONFIG": str(self.kubeconfig), "PATH": path}

    async def start_process(self, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
        """A process in the cluster's network with KUBECONFIG set; the caller ends it, or the end of this process does."""
        environment = self.environment() | dict(options.pop("env", {}))
        return await asyncio.create_subprocess_exec(*self.command(*arguments), env=environment, **options)

    async def run(self, *arguments: str, stdin: str = "") -> str:
        """Runs to the end and answers what it printed; ClusterError with its messages where it fails."""
        pipe = asyncio.subprocess.PIPE
        process = await self.start_process(*arguments, stdin=pipe, stdout=pipe, stderr=pipe)
        output, errors = await process.communicate(stdin.encode())
        if process.returncode != 0:
            raise ClusterError(f"{' '.join(arguments)}: status {process.returncode}: {errors.decode()[-3000:]}")
        return output.decode()

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """`kubectl ...` as administrator."""
        return await self.run("kubectl", *arguments, stdin=stdin)

    async def helm(self, *arguments: str) -> str:
        """`helm ...` as administrator."""
        return await self.run("helm", *arguments)

    async def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """One object as the API server has it."""
        text = await self.kubectl("get", kind, name, "-n", namespace, "-o", "json")
        found: dict[str, Any] = json.loads(text)
        return found

    async def pause_component(self, name: str) -> None:
        """Stops etcd, kube-apiserver, kube-controller-manager, kube-scheduler, agent or services until `resume_component`."""
        await self._order("stop", name)

    async def resume_component(self, name: str) -> None:
        """Starts a component again that `pause_component` stopped."""
        await self._order("start", name)

    @contextlib.asynccontextmanager
    async def without(self, component: str) -> AsyncIterator[None]:
        """Inside, `component` is not running."""
        await self.pause_component(component)
        try:
            yield
        finally:
            await self.resume_component(component)

    async def eventually(self, what: str, check: Callable[[], Any], *, within: float = 30) -> Any:
        """The first true answer of the coroutine function `check`; ClusterError names `what` after `within` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while True:
            try:
                last: Any = await check()
            except ClusterError as error:
                last, answer = None, str(error)
            else:
                answer = repr(last)
            if last:
                return last
            if loop.time() > deadline:
                raise ClusterError(f"not within {within} s: {what}; at last: {answer}")
            await asyncio.sleep(0.1)

    async def _order(self, verb: str, name: str) -> None:
        reader, writer = await asyncio.open_unix_connection(self.state / "control")
        writer.write(f"{verb} {name}\n".encode())
        answer = (await reader.readline()).decode().strip()
        writer.close()
        if answer != "ok":
            raise ClusterError(answer)

    def init(self) -> state.Init:
        """Process 1 of the cluster. ClusterError where it does not run."""
        init = state.read_init(self.state)
        if init is None or not init.alive():
            raise ClusterError(f"no cluster {self.name!r} is running; `up {self.name}` starts one")
        return init

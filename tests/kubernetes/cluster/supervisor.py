"""Starts everything of one cluster, in namespaces of its own, and ends it: `python -m ...supervisor STATE`.

Three processes: the outer one makes the namespaces and waits; process 1 of the new PID namespace collects orphans, and its
end, however it comes about, ends all others; the third is the supervisor proper. Each component's output is in
STATE/logs/NAME.log. A component that ends by itself ends the cluster, with its last lines as the message.

STATE/control is a unix socket that takes one line, `stop NAME` or `start NAME`, and answers `ok` or what is wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx

from . import control_plane, network, pki, state
from .kube import ApiError, Kube
from .namespaces import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    MS_REC,
    MS_SLAVE,
    become_root_of_a_user_namespace,
    die_with_parent,
    mount,
    unshare,
)

_OURS = ("agent", "services")


class StartError(Exception):
    """A component did not start or ended by itself; the text has its last lines."""


def main() -> int:
    """The outer process: namespaces, then process 1, then its exit status."""
    folder = Path(sys.argv[1])
    if "--with-parent" in sys.argv:
        die_with_parent()
    if os.geteuid() != 0:
        become_root_of_a_user_namespace()
    unshare(CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID)
    mount("", "/", "", MS_REC | MS_SLAVE)
    init = os.fork()
    if init == 0:
        die_with_parent()
        os._exit(_be_process_1(folder))
    state.write_init(folder, init)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(init, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])


def _be_process_1(folder: Path) -> int:
    supervisor = os.fork()
    if supervisor == 0:
        os._exit(_supervise(folder))
    signal.signal(signal.SIGTERM, lambda *_: os.kill(supervisor, signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == supervisor:
            return os.waitstatus_to_exitcode(status)


def _supervise(folder: Path) -> int:
    try:
        asyncio.run(_Supervisor(folder).run())
    except StartError as error:
        (folder / "failed").write_text(str(error))
        return 1
    return 0


class _Supervisor:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options = json.loads((folder / "options.json").read_text())
        self._programs = Path(self._options["programs"])
        self._nodes = network.nodes(self._options["nodes"])
        self._commands = control_plane.commands(self._programs, folder)
        self._ours = (*_OURS, "zones") if self._options["zone_delay"] else _OURS
        for name in self._ours:
            self._commands[name] = [sys.executable, "-m", f"{__package__}.{name}", str(folder)]
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._ended: asyncio.Queue[str] = asyncio.Queue()
        self._watchers: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        stopping = asyncio.create_task(stop.wait())
        try:
            await self._start_all()
            control = await asyncio.start_unix_server(self._control, self._folder / "control")
            (self._folder / "ready").touch()
            failing = asyncio.create_task(self._ended.get())
            await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
            control.close()
            if failing.done():
                raise StartError(self._obituary(failing.result()))
        finally:
            await self._stop_all()

    async def _start_all(self) -> None:
        network.set_up(self._nodes)
        self._write_resolver()
        pki.make_pki(self._folder / "pki", node_addresses=[node.address for node in self._nodes])
        await self._start("etcd")
        await self._start("kube-apiserver")
        async with Kube(self._folder / "pki", "admin") as kube:
            await self._until_found(kube, "/readyz?verbose=false", text=True)
            # The controller manager gives up for good if it comes before the API server has made its RBAC rules.
            for name in ("kube-controller-manager", "kube-scheduler", *self._ours):
                await self._start(name)
            await self._until_found(kube, "/api/v1/namespaces/default/serviceaccounts/default")
            await self._until_found(kube, f"/api/v1/nodes/{self._nodes[-1].name}")
        if self._options["crds"]:
            await self._apply_crds()

    def _write_resolver(self) -> None:
        """The cluster's DNS for whatever is run in its mount namespace; the machine's own /etc stays as it is."""
        resolver = self._folder / "resolv.conf"
        resolver.write_text(f"nameserver {network.DNS_ADDRESS}\nsearch svc.cluster.local cluster.local\noptions ndots:5\n")
        if Path("/etc/resolv.conf").exists():
            mount(str(resolver), os.path.realpath("/etc/resolv.conf"), "", 4096)

    async def _until_found(self, kube: Kube, path: str, *, text: bool = False) -> None:
        while True:
            try:
                await kube.call("GET", path)
            except ValueError:
                if text:  # /readyz answers "ok", which is no JSON
                    return
                raise
            except (ApiError, httpx.TransportError):
                if not self._ended.empty():
                    raise StartError(self._obituary(self._ended.get_nowait())) from None
                await asyncio.sleep(0.05)
            else:
                return

    async def _apply_crds(self) -> None:
        kubectl = [str(self._programs / "kubectl"), f"--kubeconfig={self._folder / 'pki' / 'admin.kubeconfig'}"]
        for arguments in (
            ("apply", "--server-side", "-k", str(self._programs / "crds")),
            ("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"),
        ):
            process = await asyncio.create_subprocess_exec(
                *kubectl, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            output, _ = await process.communicate()
            if process.returncode != 0:
                raise StartError(f"kubectl {arguments[0]} of the CRDs failed: {output.decode()[-2000:]}")

    async def _start(self, name: str) -> None:
        with (self._folder / "logs" / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._commands[name], stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._processes[name] = process
        watcher = asyncio.create_task(self._watch(name, process))
        self._watchers.add(watcher)
        watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        if self._processes.get(name) is process:  # else it was stopped on purpose
            self._ended.put_nowait(name)

    async def _stop(self, name: str) -> None:
        process = self._processes.pop(name)
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _stop_all(self) -> None:
        """Pods first, by their agent; the rest has nothing to lose and ends with the PID namespace."""
        if "agent" in self._processes:
            await self._stop("agent")

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb, _, name = (await reader.readline()).decode().strip().partition(" ")
        if name not in self._commands or verb not in ("stop", "start"):
            answer = f"no such order; stop or start one of {', '.join(self._commands)}"
        elif (verb == "stop") != (name in self._processes):
            answer = f"{name} is {'not running' if verb == 'stop' else 'running already'}"
        else:
            await (self._stop(name) if verb == "stop" else self._start(name))
            answer = "ok"
        writer.write(f"{answer}\n".encode())
        writer.close()

    def _obituary(self, name: str) -> str:
        lines = (self._folder / "logs" / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join([f"{name} ended by itself; its last lines:", *lines[-20:]])


if __name__ == "__main__":
    sys.exit(main())

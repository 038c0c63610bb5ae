"""One container of a pod as a process: started, probed, restarted and ended as a kubelet would.

Probes run ten times a second until they succeed for the first time (a kubelet would wait a whole period), then by their
own period; back-off of crashing containers is 1 s doubling to 10 s (a kubelet's: 10 s to 5 min). Tests are to be quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import probes
from .environment import NotYet
from .images import NoSuchImage
from .kube import Object
from .logs import Log

_SCRIPT = Path(__file__).with_name("namespaces.py")
_ROOT = Path(__file__).resolve().parents[(__package__ or "").count(".") + 1]
_EAGER_PERIOD = 0.1
_SOON_IS_CRASHING = 10.0


@dataclass(frozen=True)
class Launch:
    """All that is needed to start the program: the form that `namespaces.py pod` reads."""

    command: list[str]
    environment: dict[str, str]
    directory: str
    mounts: list[dict[str, Any]]


class Container:
    """One container; `run` returns when it has ended for good. `changed` is called whenever its status is another."""

    def __init__(
        self,
        definition: Object,
        *,
        pod: Object,
        policy: str,
        folder: Path,
        log: Log,
        launch: Callable[[], Launch],
        changed: Callable[[], None],
    ) -> None:
        self.definition = definition
        self.name: str = definition["name"]
        self.log = log
        self.started = False
        self.ready = False
        self.exit_code: int | None = None
        self.restarts = 0
        self._pod = pod
        self._policy = policy
        self._folder = folder
        self._launch = launch
        self._changed = changed
        self._state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self._last_state: Object = {}
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self.first_start = asyncio.Event()
        self.finished = False

    def status(self) -> Object:
        """An entry of containerStatuses."""
        return {
            "name": self.name,
            "image": self.definition["image"],
            "imageID": f"local/{self.definition['image']}",
            "containerID": f"process://{self._pod['metadata']['uid']}/{self.name}/{self.restarts}",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self._state,
            "lastState": self._last_state,
        }

    def wait_because(self, reason: str, message: str) -> None:
        """Shows why the container is not started."""
        if self._state != {"waiting": {"reason": reason, "message": message}}:
            self._state = {"waiting": {"reason": reason, "message": message}}
            self._changed()

    async def run(self, *, network: str, address: str) -> None:
        """Starts the program, and again as the restart policy says, until it ended for good or `stop` ended it."""
        delay = 1.0
        while not self._stopping.is_set():
            begun = asyncio.get_running_loop().time()
            code = await self._run_once(network=network, address=address)
            if self._stopping.is_set() or self._policy == "Never" or (self._policy == "OnFailure" and code == 0):
                break
            if asyncio.get_running_loop().time() - begun > _SOON_IS_CRASHING:
                delay = 1.0
            self._last_state = self._state
            self.wait_because("CrashLoopBackOff", f"ended with status {code}; next start in {delay:.0f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, 10.0)
            self.restarts += 1
        self.finished = True
        self.log.open = False
        self._changed()

    async def stop(self, grace: float) -> None:
        """preStop, SIGTERM, and SIGKILL when `grace` seconds are over, counted from now."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        deadline = asyncio.get_running_loop().time() + grace
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._pre_stop(), grace)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), max(0.0, deadline - asyncio.get_running_loop().time()))
        self.kill()
        await process.wait()

    def kill(self) -> None:
        """SIGKILL to the program and all that shares its process group."""
        self._stopping.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _pre_stop(self) -> None:
        hook = (self.definition.get("lifecycle") or {}).get("preStop") or {}
        if "sleep" in hook:
            await asyncio.sleep(hook["sleep"]["seconds"])
        elif probes.supported(hook):
            await probes.probe(self.definition, hook | {"timeoutSeconds": 30}, self._address)
        elif hook:
            self.log.note(f"preStop hook of kind {', '.join(hook)} is not known to this node agent and was left out")

    async def _run_once(self, *, network: str, address: str) -> int:
        self._address = address
        try:
            spec = self._spec(self._launch(), network)
        except (NotYet, NoSuchImage) as error:
            reason = "ErrImagePull" if isinstance(error, NoSuchImage) else "CreateContainerConfigError"
            self.wait_because(reason, str(error))
            return 1
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-E",
            str(_SCRIPT),
            "pod",
            str(spec),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdout is not None
        self._process = process
        self._state = {"running": {"startedAt": _now()}}
        self.exit_code = None
        self.first_start.set()
        probing = asyncio.create_task(self._probe_all(address))
        pumping = asyncio.create_task(self.log.pump(process.stdout))
        self._changed()
        code = await process.wait()
        with contextlib.suppress(ProcessLookupError):  # children that it left behind hold the output open
            os.killpg(process.pid, signal.SIGKILL)
        probing.cancel()
        await asyncio.wait({probing, pumping}, timeout=2)
        began = self._state["running"]["startedAt"]
        self.started = self.ready = False
        self.exit_code = 128 - code if code < 0 else code
        reason = "Completed" if code == 0 else "Error"
        self._state = {"terminated": {"exitCode": self.exit_code, "reason": reason, "startedAt": began, "finishedAt": _now()}}
        self._changed()
        return self.exit_code

    def _spec(self, launch: Launch, network: str) -> Path:
        security = self.definition.get("securityContext") or {}
        root = self._folder / "root"
        root.mkdir(parents=True, exist_ok=True)
        path = self._folder / "launch.json"
        path.write_text(
            json.dumps(
                {
                    "command": launch.command,
                    "environment": launch.environment,
                    "directory": launch.directory,
                    "mounts": launch.mounts,
                    "network": network,
                    "hostname": self._pod["spec"].get("hostname") or self._pod["metadata"]["name"][:63],
                    "root": str(root),
                    "keep": [sys.prefix, sys.base_prefix, str(_ROOT)],
                    "readOnlyRoot": bool(security.get("readOnlyRootFilesystem")),
                }
            )
        )
        return path

    async def _probe_all(self, address: str) -> None:
        startup = self.definition.get("startupProbe")
        if startup is not None and not await self._until_started(startup, address):
            self._end_unhealthy("startup")
            return
        self.started = True
        readiness = self.definition.get("readinessProbe")
        self.ready = readiness is None
        self._changed()
        async with asyncio.TaskGroup() as group:
            if readiness is not None:
                group.create_task(self._watch_readiness(readiness, address))
            if self.definition.get("livenessProbe") is not None:
                group.create_task(self._watch_liveness(self.definition["livenessProbe"], address))

    async def _until_started(self, action: Object, address: str) -> bool:
        patience = action.get("initialDelaySeconds", 0) + action.get("failureThreshold", 3) * action.get("periodSeconds", 10)
        deadline = asyncio.get_running_loop().time() + patience
        while asyncio.get_running_loop().time() < deadline:
            if await self._attempt(action, address):
                return True
            await asyncio.sleep(_EAGER_PERIOD)
        return False

    async def _watch_readiness(self, action: Object, address: str) -> None:
        good = bad = 0
        ever = False
        while True:
            succeeded = await self._attempt(action, address)
            good, bad = (good + 1, 0) if succeeded else (0, bad + 1)
            ready = self.ready
            if good >= action.get("successThreshold", 1):
                ready = ever = True
            elif bad >= action.get("failureThreshold", 3):
                ready = False
            if ready != self.ready:
                self.ready = ready
                self._changed()
            await asyncio.sleep(action.get("periodSeconds", 10) if ever else _EAGER_PERIOD)

    async def _watch_liveness(self, action: Object, address: str) -> None:
        await asyncio.sleep(action.get("initialDelaySeconds", 0))
        bad = 0
        while bad < action.get("failureThreshold", 3):
            await asyncio.sleep(action.get("periodSeconds", 10))
            bad = 0 if await self._attempt(action, address) else bad + 1
        self._end_unhealthy("liveness")

    async def _attempt(self, action: Object, address: str) -> bool:
        if not probes.supported(action):
            self.log.note(f"probe of kind {', '.join(action)} is not known to this node agent and counts as failed")
            return False
        return await probes.probe(self.definition, action, address)

    def _end_unhealthy(self, kind: str) -> None:
        self.log.note(f"{kind} probe failed: the container is ended and started again")
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

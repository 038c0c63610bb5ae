"""Proxies with real Envoys, in a short folder each."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import trustme

from fleet.plane import SCOPE, SERVER_NAME, Mounted, Plane
from free_ports import free_port
from gwanmun.app.proxy import Proxy, ProxyOptions


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, as the paths of sockets have to be; pytest's own are too long."""
    path = Path(tempfile.mkdtemp(prefix="gwp-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@dataclass
class Pod:
    """A proxy's program with what Kubernetes would mount."""

    token: Mounted
    ca: Mounted
    options: ProxyOptions

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Running"]:
        proxy = Proxy(self.options)
        task = asyncio.create_task(proxy.run())
        try:
            yield Running(self, proxy, task)
        finally:
            proxy.stop()
            await asyncio.gather(task, return_exceptions=True)


@dataclass
class Running:
    pod: Pod
    proxy: Proxy
    task: "asyncio.Task[int]"

    async def ask(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return await client.get(f"http://127.0.0.1:{self.pod.options.status_port}{path}")

    async def until(self, path: str, status: int, text: str = "") -> httpx.Response:
        """The first answer with that status and text; what it was last, where there is none in time."""
        said = "nothing"
        try:
            async with asyncio.timeout(20):
                while not self.task.done():
                    try:
                        answer = await self.ask(path)
                    except httpx.TransportError as error:
                        said = repr(error)
                    else:
                        said = f"{answer.status_code} {answer.text}"
                        if answer.status_code == status and text in answer.text:
                            return answer
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        raise AssertionError(f"{path} said {said}; the proxy {self.task}")


@pytest.fixture
def pod(folder: Path, authority: trustme.CA) -> Pod:
    token, ca = Mounted(folder / "token"), Mounted(folder / "ca")
    token.write(token="one")
    ca.write(**{"ca.crt": authority.cert_pem.bytes().decode()})
    options = ProxyOptions(
        xds_host="127.0.0.1",
        xds_port=0,
        xds_server_name=SERVER_NAME,
        gateway=SCOPE,
        pod="gw-1",
        node="node-1",
        zone="a",
        concurrency=1,
        drain=timedelta(seconds=20),
        settle=timedelta(milliseconds=50),
        log_format="json",
        token_file=token.folder / "token",
        ca_file=ca.folder / "ca.crt",
        run_directory=folder / "run",
        status_port=free_port(),
        status_address="127.0.0.1",
        refresh_seconds=0.05,
    )
    return Pod(token, ca, options)


def towards(pod: Pod, plane: Plane) -> Pod:
    pod.options = replace(pod.options, xds_port=plane.port)
    return pod

"""The measured gateway: `gwanmun up` of a folder of manifests, as a user runs it, in a run directory of its own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_S = 120.0
_COMMAND = (str(Path(sys.executable).parent / "gwanmun"),)


@dataclass(slots=True)
class Up:
    """A running `gwanmun up`. `started` is `time.perf_counter()` of just before it was started; `served_after` are the
    seconds from then until it answered."""

    folder: Path
    runtime: Path
    process: subprocess.Popen[bytes]
    started: float
    served_after: float = 0.0

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def envoy_pid(self) -> int:
        """The Envoy that serves."""
        states = list(self.runtime.glob("gwanmun/*/state.json"))
        return int(json.loads(states[0].read_text())["envoys"][-1]["process"]["pid"])

    @property
    def envoy_pids(self) -> list[int]:
        states = list(self.runtime.glob("gwanmun/*/state.json"))
        return [one["process"]["pid"] for state in states for one in json.loads(state.read_text())["envoys"]]


def environment(runtime: Path) -> dict[str, str]:
    return {**keeping_byte_code(), "XDG_RUNTIME_DIR": str(runtime), "NO_COLOR": "1"}


def keeping_byte_code() -> dict[str, str]:
    """The environment of a Python that keeps byte code, as it does where nothing else is set: to compile the program anew takes
    longer than to load it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def start(folder: Path, runtime: Path, arguments: Sequence[str] = ()) -> Up:
    """Start it, without waiting. What it says goes into `up.log` of the run directory."""
    with (runtime / "up.log").open("ab") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*_COMMAND, "up", str(folder), "--drain-seconds", "0", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(runtime),
        )
    return Up(folder, runtime, process, started)


def down(folder: Path, runtime: Path) -> None:
    """End whatever serves the folder."""
    done = subprocess.run(
        [*_COMMAND, "down", str(folder)], env=environment(runtime), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"gwanmun down: {done.stdout}{done.stderr}")


@contextmanager
def serving(folder: Path, port: int, *, host: str, path: str = "/", arguments: Sequence[str] = ()) -> Iterator[Up]:
    """A gateway that answers there with 200, ended with the block."""
    with tempfile.TemporaryDirectory(prefix="gwb") as short:
        runtime = Path(short)
        up = start(folder, runtime, arguments)
        try:
            up.served_after = await_answer(up, port, host=host, path=path)
            yield up
        finally:
            down(folder, runtime)
            up.process.wait(timeout=30)


def await_answer(up: Up, port: int, *, host: str, path: str = "/") -> float:
    """Wait for a 200; the seconds since it was started."""
    while status(port, host=host, path=path) != 200:
        if up.process.poll() is not None:
            raise RuntimeError(f"gwanmun has ended:\n{(up.runtime / 'up.log').read_text()}")
        if time.perf_counter() - up.started > _PATIENCE_S:
            raise TimeoutError(f"not serving {host}{path} after {_PATIENCE_S} s:\n{(up.runtime / 'up.log').read_text()}")
        time.sleep(0.002)
    return time.perf_counter() - up.started


def status(port: int, *, host: str, path: str = "/") -> int:
    """The status of a GET on a new connection; 0 where nobody answers."""
    head = _head(port, host, path)
    return int(head.split(" ", 2)[1]) if head else 0


def header(port: int, *, host: str, name: str, path: str = "/") -> str:
    """A header of the answer to a GET on a new connection; empty where there is none."""
    lines = _head(port, host, path).split("\r\n")
    return next((line.partition(": ")[2] for line in lines if line.lower().startswith(f"{name}: ")), "")


def _head(port: int, host: str, path: str) -> str:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nx-model-id: gpt-4\r\nconnection: close\r\n\r\n".encode())
        return connection.recv(8192).decode("latin-1").partition("\r\n\r\n")[0]
    return ""

"""A client in a process of its own that asks until an answer shows a change, and says when it did.

`Prober` is the measuring side. Times are `time.perf_counter()`, which all processes of a machine share on Linux.
"""

import http.client
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

_PAUSE_S = 0.0002
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """When the first answer with the expected header had come; and how many answers on the way were not 200."""

    at: float
    asked: int
    errors: int


class Prober:
    """The other end of a prober's pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def expect(self, host: str, header: str, value: str) -> None:
        """Ask for that host from now on, until the header has that value."""
        self._pipe.send((host, header, value))
        assert self._pipe.recv() == "asking"

    def seen(self) -> Seen:
        """Blocks. TimeoutError if the change never showed."""
        answer = self._pipe.recv()
        if not isinstance(answer, Seen):
            raise TimeoutError(answer)
        return answer

    @property
    def has_seen(self) -> bool:
        return self._pipe.poll()


@contextmanager
def prober(port: int) -> Iterator[Prober]:
    """One that asks a port of 127.0.0.1."""
    spawn = multiprocessing.get_context("spawn")
    ours, its = spawn.Pipe()
    process = spawn.Process(target=_ask, args=(port, its), daemon=True)
    process.start()
    try:
        yield Prober(ours)
    finally:
        ours.close()
        process.terminate()
        process.join()


def _ask(port: int, pipe: Connection) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while True:
        host, header, value = pipe.recv()
        asked = errors = 0
        until = time.perf_counter() + _PATIENCE_S
        told = False
        while True:
            connection.request("GET", "/", headers={"host": host})
            response = connection.getresponse()
            response.read()
            asked += 1
            errors += response.status != 200
            if response.getheader(header) == value:
                pipe.send(Seen(time.perf_counter(), asked, errors))
                break
            if not told:  # the connection stands, and the old answer has been seen
                pipe.send("asking")
                told = True
            if time.perf_counter() > until:
                pipe.send(f"{host} has not shown {header}: {value} in {_PATIENCE_S} s")
                break
            time.sleep(_PAUSE_S)

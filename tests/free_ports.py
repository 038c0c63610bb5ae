"""Ports for tests: below those that the kernel gives to outgoing connections, which could take one before it is used, and
never the same twice in a run. Workers of one run have ports of their own.
"""

import contextlib
import itertools
import os
import random
import socket

_WORKERS = 8
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
_MINE = range(20_000 + _WORKER, 32_000, _WORKERS)
_START = random.randrange(len(_MINE))  # several runs may share a machine
_candidates = itertools.cycle((*_MINE[_START:], *_MINE[:_START]))


def free_port(address: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    for candidate in _candidates:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((address, candidate))
            return candidate
    raise AssertionError("the cycle of candidates has an end")

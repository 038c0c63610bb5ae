"""Manifest files read ahead, by processes beside this one, while the rest of the program is still being loaded.

To parse and validate thousands of routes is most of a start, and Python does it on one core only. What was read ahead is a
hint: it counts for a file that is still as it was just before it was read. Every other file, and those of a process that has
ended too early, are read by whoever asks.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from gwanmun.api.load import LoadResult
from gwanmun.providers.files import MAX_FILES, Stamp, read_file, stamp_of, walk

MIN_FILES = 500
"""For fewer, more processes would take longer to start than they save."""
MAX_PROCESSES = 4
"""With more, reading would end before the program is loaded."""

_Read = dict[str, tuple[Stamp, LoadResult]]
_Reader = tuple[BaseProcess, Connection]


class ReadAhead:
    """What such processes have read. They are waited for when it is first asked for."""

    def __init__(self, readers: Sequence[_Reader] = ()) -> None:
        self._readers = list(readers)
        self._read: _Read = {}

    def take(self, path: str, stamp: Stamp) -> LoadResult | None:
        """What the file with this stamp says. None where it has to be read, and from then on: it is given away but once."""
        while self._readers:
            process, sent = self._readers.pop()
            with sent, contextlib.suppress(EOFError, OSError):
                self._read |= sent.recv()
            process.join()
        read, said = self._read.pop(path, (None, None))
        return said if read == stamp else None


def cores() -> int:
    """How many processes can read at a time here. One where a process cannot be split safely."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1


def read_ahead(paths: Sequence[Path], cores: int) -> ReadAhead:
    """Start to read the manifest files of these paths on so many cores; none are read where that would not pay.

    To be called while there is one thread only: the processes are copies of this one (fork), which have loaded everything that
    they need, and a lock that another thread holds would stay locked in them.
    """
    files = [path for root in paths for path in walk(root, set())[0]][:MAX_FILES]
    if cores < 2 or len(files) < MIN_FILES:
        return ReadAhead()
    processes = min(cores, MAX_PROCESSES)
    readers = []
    with contextlib.suppress(OSError):  # no more processes, memory or open files to be had
        for number in range(processes):
            readers.append(_start(files[number::processes]))  # noqa: PERF401  # those that were started count
    return ReadAhead(readers)


def _start(files: Sequence[str]) -> _Reader:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_read, args=(files, ours, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _read(files: Sequence[str], ours: Connection, theirs: Connection) -> None:
    """What one of the processes does; `ours` is the end of whoever asked."""
    ours.close()  # or this process would never see that nobody listens any more
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is said to all of a terminal's processes, and not meant for this one
    gc.disable()  # it ends before there would be anything to collect
    read: _Read = {}
    for path in files:
        with contextlib.suppress(OSError, ValueError):  # whoever asks will see the same, and say it
            stamp = stamp_of(path)
            said = read_file(path)
            if said is not None:
                read[path] = stamp, said
    with contextlib.suppress(BrokenPipeError):
        theirs.send(read)

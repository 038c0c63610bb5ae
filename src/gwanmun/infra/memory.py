"""How much memory Envoy may take: near that bound it refuses requests, instead of being killed or the machine's ruin.

A bound is part of the bootstrap, and a changed bootstrap is a hot restart: so it follows from what does not change from one
`up` to the next, the limit of our cgroup and the size of the machine, and not from what happens to be free.
"""

from collections.abc import Iterator
from pathlib import Path

_PART_OF_A_CONTAINER = 0.85
"""The rest is for the program that looks after Envoy, for code and for what the allocator holds back."""
_PART_OF_A_MACHINE = 0.5
"""The rest is for the control plane, and for the servers that run beside it."""
_LEAST = 256 << 20
"""Below that Envoy would refuse requests because of its configuration alone."""


def container_heap(limit: int) -> int:
    """What Envoy may allocate in a container of its own with this limit, in bytes."""
    return int(limit * _PART_OF_A_CONTAINER)


def machine_heap(memory: int) -> int:
    """What Envoy may allocate where it shares that much memory with others, in bytes."""
    return max(_LEAST, int(memory * _PART_OF_A_MACHINE))


def machine_memory(root: Path = Path("/")) -> int | None:
    """What this process and its kind may use at most, in bytes; None where the machine does not say."""
    found = [*_size_of_machine(root), *_limits_of_cgroups(root)]
    return min(found) if found else None


def _size_of_machine(root: Path) -> Iterator[int]:
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            yield int(rest.split()[0]) << 10


def _limits_of_cgroups(root: Path) -> Iterator[int]:
    """Of our cgroup and those that it is in. Where it has no limit its file says `max`, or a number beyond any machine."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mount, file = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            mount, file = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        inner = Path(path.lstrip("/"))
        for cgroup in (inner, *inner.parents):
            limit = _read(mount / cgroup / file).strip()
            if limit.isdecimal():
                yield int(limit)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

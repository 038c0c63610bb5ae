"""How much memory Envoy may take on a machine, by what the machine says."""

from pathlib import Path

import pytest

from gwanmun.infra.memory import container_heap, machine_heap, machine_memory

GIB = 1 << 30
MEMINFO = {"proc/meminfo": "MemTotal:       16777216 kB\nMemFree:  1 kB\n"}


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, None),
        (MEMINFO, 16 * GIB),
        (MEMINFO | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 16 * GIB),
        (MEMINFO | {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{2 * GIB}\n"}, 2 * GIB),
        (
            MEMINFO
            | {
                "proc/self/cgroup": "0::/a.slice/b\n",
                "sys/fs/cgroup/a.slice/b/memory.max": "max\n",
                "sys/fs/cgroup/a.slice/memory.max": f"{GIB}\n",
            },
            GIB,
        ),
        (
            MEMINFO
            | {
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/y\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/y/memory.limit_in_bytes": f"{3 * GIB}\n",
            },
            3 * GIB,
        ),
    ],
)
def test_the_tightest_limit_counts(tmp_path: Path, files: dict[str, str], memory: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine_memory(tmp_path) == memory


def test_a_container_is_envoys_own_and_a_machine_is_not() -> None:
    assert GIB // 2 < container_heap(GIB) < GIB
    assert machine_heap(8 * GIB) == 4 * GIB
    assert machine_heap(GIB // 8) == GIB // 4


def test_this_machine_says_it() -> None:
    found = machine_memory()
    assert found is not None
    assert found > 1 << 20

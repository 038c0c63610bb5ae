"""The wheel's platform tag is what the module really needs."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).parents[2] / "hatch_build.py"
spec = importlib.util.spec_from_file_location("hatch_build", HOOK)
assert spec is not None
assert spec.loader is not None
hatch_build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hatch_build)


def test_the_newest_glibc_symbol_counts() -> None:
    symbols = b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GCC_3.3\0"
    assert hatch_build.platform_tag(symbols, "x86_64") == "manylinux_2_34_x86_64"


def test_without_glibc_nothing_is_promised() -> None:
    assert hatch_build.platform_tag(b"\x7fELF\0musl", "aarch64") == "linux_aarch64"


@pytest.mark.native
def test_this_machines_module_is_for_this_machine(module: Path) -> None:
    kind, major, minor, machine = hatch_build.platform_tag(module.read_bytes(), platform.machine()).split("_", 3)
    assert (kind, machine) == ("manylinux", platform.machine())
    running = subprocess.run(["getconf", "GNU_LIBC_VERSION"], capture_output=True, text=True, check=True).stdout
    assert (int(major), int(minor)) <= tuple(map(int, running.split()[1].split(".")))

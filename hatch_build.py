"""Builds the native module into the wheel.

With cargo the wheel carries `gwanmun/_native/libgwanmun.so` and says which Linux it is for; without cargo it is a pure
one and everything but the AI features works. Deliberately absent: editable installs, for which `make` builds the
module, and the compiler's own settings, which are in `native/Cargo.toml`.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "gwanmun/_native/libgwanmun.so"
_GLIBC_VERSION = re.compile(rb"GLIBC_(\d+)\.(\d+)")


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's hook for wheels."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the module to the wheel, or warns that there is none."""
        if version == "editable":
            return
        missing = _what_is_missing()
        if missing is not None:
            self.app.display_warning(f"{missing}: this wheel has no native module, so AI features will be unavailable")
            return
        module = build_module(Path(self.root) / "native" / "Cargo.toml")
        build_data["force_include"][str(module)] = MODULE
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(module.read_bytes(), platform.machine())}"


def _what_is_missing() -> str | None:
    if sys.platform != "linux":
        return f"the native module is built on Linux only, not on {sys.platform}"
    return None if shutil.which("cargo") else "cargo was not found"


def build_module(manifest: Path) -> Path:
    """Compiles the module with the locked crates and gives back the library.

    Raises `subprocess.CalledProcessError` where cargo fails: a wheel that should have the module and has not would be
    found out much later.
    """
    cargo = ["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1", "--manifest-path", str(manifest)]
    metadata = json.loads(subprocess.run(cargo, check=True, stdout=subprocess.PIPE).stdout)
    subprocess.run(["cargo", "build", "--release", "--locked", "--manifest-path", str(manifest)], check=True)
    return Path(metadata["target_directory"]) / "release" / "libgwanmun.so"


def platform_tag(library: bytes, machine: str) -> str:
    """The platform part of the wheel's tag (PEP 600), from the newest glibc symbol that the library asks for.

    A library without glibc symbols (musl) promises nothing beyond this kind of machine.
    """
    versions = [(int(major), int(minor)) for major, minor in _GLIBC_VERSION.findall(library)]
    if not versions:
        return f"linux_{machine}"
    major, minor = max(versions)
    return f"manylinux_{major}_{minor}_{machine}"

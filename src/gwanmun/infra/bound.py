"""The bindings in use, kept in the run directory: a control plane that takes an Envoy over must not move its ports."""

from collections.abc import Mapping

import msgspec

from gwanmun.infra.launch import noted
from gwanmun.infra.ports import LocalBinding, PortKey
from gwanmun.infra.rundir import RunDir

FILE = "ports.json"
Bindings = Mapping[PortKey, tuple[LocalBinding, ...]]


def read_bindings(rundir: RunDir) -> Bindings:
    """What an Envoy of this run directory is bound to; empty if none runs, since then nothing holds those places."""
    content = noted(rundir, FILE)
    if content is None:
        return {}
    try:
        return dict(msgspec.json.decode(content, type=list[tuple[PortKey, tuple[LocalBinding, ...]]]))
    except msgspec.DecodeError:
        return {}


def write_bindings(rundir: RunDir, bindings: Bindings) -> None:
    """Note them down before Envoy is told: noted and not used does no harm."""
    rundir.write(FILE, msgspec.json.encode(list(bindings.items())))

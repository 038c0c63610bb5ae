"""What manifest files said before, of those that say it no more but are broken or unreadable, kept in the run directory.

It is in force, and nowhere else on disk: a control plane that takes an Envoy over would take it away. Secrets are among it.
"""

from collections.abc import Mapping

import msgspec

from gwanmun.api import Object
from gwanmun.api.decode import decode_json
from gwanmun.api.kinds import KINDS
from gwanmun.infra.launch import noted
from gwanmun.infra.rundir import RunDir
from gwanmun.resources import key_of

FILE = "kept.json"
Kept = Mapping[str, tuple[Object, ...]]
"""By the path of the file."""


def read_kept(rundir: RunDir) -> Kept:
    """What an Envoy of this run directory may be serving; empty if none runs, since then nobody relies on it."""
    content = noted(rundir, FILE)
    if content is None:
        return {}
    try:
        files = msgspec.json.decode(content, type=dict[str, list[tuple[str, str, msgspec.Raw]]])
        return {
            path: tuple(decode_json(bytes(document), KINDS[group, kind]) for group, kind, document in objects)
            for path, objects in files.items()
        }
    except (msgspec.DecodeError, KeyError):  # of another version of ours
        return {}


def write_kept(rundir: RunDir, kept: Kept) -> None:
    """Note it down before Envoy is told what follows from it; nothing is left where there is nothing to keep."""
    if not kept:
        rundir.remove(FILE)
        return
    files = {path: [(*key_of(obj)[:2], obj) for obj in objects] for path, objects in kept.items()}
    rundir.write(FILE, msgspec.json.encode(files))

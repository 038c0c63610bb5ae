"""Folders of manifests, or a cluster, resolved once without running anything: for `check`, and for `explain` and `xds`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gwanmun.api.load import Problem
from gwanmun.app.errors import UserError
from gwanmun.app.report import problem_line
from gwanmun.app.target import is_cluster
from gwanmun.app.unheard import unheard
from gwanmun.names import ObjectKey
from gwanmun.providers import FolderProvider, ServiceBinding, SourceProblem, bound_slices
from gwanmun.resolve.model import Resolution, resolve
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot


@dataclass(frozen=True, slots=True)
class Resolved:
    """`documents` counts the objects that were found; `unheard` are those that nobody here answers for, with the reason."""

    resolution: Resolution
    unheard: tuple[tuple[ObjectKey, str], ...]
    problems: tuple[Problem | SourceProblem, ...]
    documents: int

    @property
    def problem_lines(self) -> list[str]:
        """What is wrong with the files and the bindings, without what objects' conditions say."""
        return [problem_line(problem) for problem in self.problems]


def resolve_folders(
    paths: Sequence[Path],
    bindings: Sequence[ServiceBinding] = (),
    settings: Settings = Settings(),  # noqa: B008  # a frozen value
) -> Resolved:
    """Read and resolve. UserError where a path is not there, or where a cluster's Gateways are all those of others. `@` is the
    cluster of the current context."""
    if is_cluster(paths):
        from gwanmun.app.cluster import only_others, read_cluster

        snapshot = read_cluster(paths[0]).snapshot
        if others := only_others(snapshot, settings.controller_names):
            raise UserError(others)
        return Resolved(resolve(snapshot, settings), (), (), len(snapshot.objects))
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} is not there; name a folder or file of manifests")
    changes = FolderProvider(paths).scan()
    objects = {key: obj for key, obj in changes.objects.items() if obj is not None}
    slices, unbound = bound_slices(bindings, objects)
    snapshot, _ = Snapshot().apply({**objects, **slices})
    resolution = resolve(snapshot, settings)
    silent = tuple(sorted(unheard(snapshot, resolution.statuses, settings.controller_names)))
    return Resolved(resolution, silent, (*changes.problems, *unbound), len(objects))

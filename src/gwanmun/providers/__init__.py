"""Where manifests come from. Every provider gives the same thing: changes to a Snapshot, and the problems it met."""

from gwanmun.providers.bindings import ServiceBinding, bound_slices, parse_binding
from gwanmun.providers.files import SUFFIXES
from gwanmun.providers.fileset import SourceProblem, difference
from gwanmun.providers.folder import Changes, FolderProvider

__all__ = [
    "SUFFIXES",
    "Changes",
    "FolderProvider",
    "ServiceBinding",
    "SourceProblem",
    "bound_slices",
    "difference",
    "parse_binding",
]

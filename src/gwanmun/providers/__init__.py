"""Where manifests come from. Every provider gives the same thing: changes to a Snapshot, and the problems it met."""

from gwanmun.providers.fileset import FileSet, SourceProblem
from gwanmun.providers.folder import FolderProvider

__all__ = ["FileSet", "FolderProvider", "SourceProblem"]

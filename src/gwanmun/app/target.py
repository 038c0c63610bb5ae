"""What a command looks at: folders of manifests, or a cluster. Apart, since folders need no Kubernetes client."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gwanmun.app.errors import UserError

PREFIX: Final = "@"


def is_cluster(paths: Sequence[Path]) -> bool:
    """Whether a cluster is meant (`@`, or `@CONTEXT` of the kubeconfig). UserError where folders are named beside it."""
    meant = [str(path).startswith(PREFIX) for path in paths]
    if any(meant) and len(paths) > 1:
        raise UserError(f"{PREFIX} (a cluster) stands alone; name either it or folders")
    return any(meant)

"""Several kubeconfig files read as one, as kubectl does: of each name, and of the current context, the first to say it wins."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ConfigError

_FILES: Final = {
    "clusters": ("certificate-authority",),
    "contexts": (),
    "users": ("client-certificate", "client-key", "tokenFile"),
}
"""The lists, and which fields of their entries name files."""


def merged_kubeconfig(paths: Sequence[Path]) -> KubeConfig:
    """Files that are not there count as empty, but one has to be. Raises ConfigError and whatever a wrong one leads to."""
    there = [path for path in paths if path.is_file()]
    if not there:
        raise ConfigError(f"{', '.join(map(str, paths)) or 'KUBECONFIG'}: no such file")
    merged: dict[str, Any] = {"current-context": None, **{key: {} for key in _FILES}}
    for path in there:
        document = yaml.safe_load(path.read_text()) or {}
        merged["current-context"] = merged["current-context"] or document.get("current-context")
        for key, fields in _FILES.items():
            for entry in document.get(key) or ():
                merged[key].setdefault(entry["name"], _placed(entry, key.removesuffix("s"), fields, path.parent))
    return KubeConfig.from_dict({**merged, **{key: list(merged[key].values()) for key in _FILES}}, fname=there[0])


def _placed(entry: Mapping[str, Any], part: str, fields: Sequence[str], folder: Path) -> dict[str, Any]:
    """With the files that it names relative to the folder of its own file."""
    content = entry.get(part) or {}
    return {**entry, part: {**content, **{field: str(folder / content[field]) for field in fields if content.get(field)}}}

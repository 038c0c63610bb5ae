"""From a container to the command line that stands in for its image. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .kube import Object


class NoSuchImage(Exception):
    """No mapping for an image; becomes the container's ErrImagePull."""


@dataclass(frozen=True)
class Image:
    """The program behind an image name: what a Dockerfile calls ENTRYPOINT, CMD and ENV."""

    entrypoint: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None


def decode_images(mapping: Mapping[str, Mapping[str, Any]], places: Mapping[str, str]) -> dict[str, Image]:
    """images.yaml's form, with {programs} and the like replaced by `places`."""

    def filled(words: list[str]) -> tuple[str, ...]:
        return tuple(word.format_map(places) for word in words)

    return {
        name: Image(filled(entry["entrypoint"]), filled(entry.get("arguments", [])), entry.get("environment"))
        for name, entry in mapping.items()
    }


def find_image(images: Mapping[str, Image], reference: str) -> Image:
    """The stand-in of `registry/path/NAME:tag@digest`. NoSuchImage says which names there are."""
    name = reference.partition("@")[0].rpartition("/")[2].partition(":")[0]
    if name not in images:
        raise NoSuchImage(f"no local program stands in for image {reference!r}; images.yaml has {', '.join(sorted(images))}")
    return images[name]


def command_line(container: Object, image: Image) -> list[str]:
    """`command` replaces the entrypoint and with it the image's arguments; `args` replace the arguments."""
    if container.get("command"):
        return [*container["command"], *(container.get("args") or [])]
    return [*image.entrypoint, *(container["args"] if container.get("args") else image.arguments)]

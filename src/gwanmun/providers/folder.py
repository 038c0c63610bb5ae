"""Manifests from files and folders, watched.

Reads what has changed (by size, time and inode), follows ConfigMap volumes (`..data` links) and editors' renames because
it always looks at what the path means now, and keeps everything while a folder has vanished. YAML is parsed off the event
loop.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from gwanmun.api import Object
from gwanmun.api.load import Problem, load_text
from gwanmun.names import ObjectKey
from gwanmun.providers.fileset import FileSet, SourceProblem, difference

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_FILES = 10_000
_SETTLE_MS = 20  # a burst of writes (git checkout, an editor's rename) arrives as one change
_WATCH_AGAIN_S = 0.5  # a path that is not there cannot be watched: look again


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since the last time (None: gone), and every problem that there is now."""

    objects: Mapping[ObjectKey, Object | None]
    problems: tuple[Problem | SourceProblem, ...]


class FolderProvider:
    """Owns what was read from `paths` (files or folders, searched recursively)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._files = FileSet()
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._objects: dict[ObjectKey, Object] = {}
        self._problems: tuple[Problem | SourceProblem, ...] = ()

    def scan(self) -> Changes:
        """Read what has changed on disk. Blocking; `watch` calls it in a thread."""
        present, problems = self._list()
        for path, stamp in present.items():
            if self._stamps.get(path) == stamp:
                continue
            try:
                self._files = self._files.put(path, load_text(_read(Path(path)), path))
            except (OSError, ValueError) as error:
                problems.append(SourceProblem(path, f"cannot be read ({error}); what it said before stays in force"))
                continue
            self._stamps[path] = stamp
        for path in [path for path in self._stamps if path not in present and not self._vanished(path)]:
            self._files = self._files.remove(path)
            del self._stamps[path]
        objects, doubles = self._files.objects()
        changes = difference(self._objects, objects)
        self._objects = objects
        self._problems = (*problems, *self._files.problems(), *doubles)
        return Changes(changes, self._problems)

    async def watch(self) -> AsyncGenerator[Changes, None]:
        """The first state at once, then a `Changes` whenever objects or problems are different."""
        first = await asyncio.to_thread(self.scan)
        yield first
        said = first.problems
        while True:
            async for _ in self._touched():
                changes = await asyncio.to_thread(self.scan)
                if changes.objects or changes.problems != said:
                    said = changes.problems
                    yield changes

    async def _touched(self) -> AsyncIterator[None]:
        """Something may have changed under the paths. Ends where they have to be watched anew."""
        existing = [path for path in self.paths if path.exists()]
        if len(existing) < len(self.paths):
            yield None
            await asyncio.sleep(_WATCH_AGAIN_S)
            return
        inodes = [_stamp(path) for path in existing]
        # A file is watched through its folder: editors replace files by renaming another over them.
        roots = {path if path.is_dir() else path.parent for path in existing}
        yield None  # what changed before the watch stood
        with contextlib.suppress(FileNotFoundError):
            async for _ in watchfiles.awatch(
                *roots, watch_filter=None, step=_SETTLE_MS, debounce=400, rust_timeout=2000, yield_on_timeout=True
            ):
                yield None
                if [_stamp(path) for path in self.paths if path.exists()] != inodes:
                    return  # the folder itself was replaced: its watch is on the old one

    def _list(self) -> tuple[dict[str, tuple[int, ...]], list[Problem | SourceProblem]]:
        present: dict[str, tuple[int, ...]] = {}
        problems: list[Problem | SourceProblem] = []
        for root in self.paths:
            try:
                found = [root] if root.is_file() else sorted(_walk(root))
            except OSError as error:
                problems.append(
                    SourceProblem(str(root), f"is not there ({error.strerror}); what it said before stays in force")
                )
                continue
            for path in found:
                if len(present) >= MAX_FILES:
                    problems.append(
                        SourceProblem(str(root), f"holds more than {MAX_FILES} manifest files; the rest is ignored")
                    )
                    break
                with contextlib.suppress(FileNotFoundError):  # gone between listing and looking: the next scan knows
                    status = path.stat()
                    present[str(path)] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return present, problems

    def _vanished(self, path: str) -> bool:
        """Whether a file is away because the whole path that it was found under is."""
        return any(Path(path).is_relative_to(root) and not root.exists() for root in self.paths)


def _walk(root: Path) -> list[Path]:
    """The manifest files of a folder. Hidden entries are passed over, a ConfigMap volume's `..data` among them: what it
    holds is reached through the visible links."""
    found = []
    for entry in os.scandir(root):
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            found += _walk(path)
        elif path.suffix in SUFFIXES and entry.is_file():
            found.append(path)
    return found


def _read(path: Path) -> bytes:
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise ValueError(f"{size} bytes, more than the {MAX_FILE_BYTES} that a manifest file may have")
    return path.read_bytes()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino if path.is_dir() else 0

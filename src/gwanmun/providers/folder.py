"""Manifests from files and folders, watched.

Reads what has changed (by size, times and inode), follows ConfigMap volumes (`..data` links) and editors' renames because
it always looks at what the path means now, and keeps everything while a folder has vanished or a link leads nowhere. What
is not said any more counts as deleted only after a while in which nothing was written: until then somebody may be in the
middle of writing it again. YAML is parsed off the event loop.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import watchfiles

from gwanmun.api import Object
from gwanmun.api.load import LoadResult, Problem
from gwanmun.names import ObjectKey
from gwanmun.providers.ahead import ReadAhead
from gwanmun.providers.files import MAX_FILES, SUFFIXES, Stamp, read_file, stamp_of, walk
from gwanmun.providers.fileset import FileSet, SourceProblem, difference

KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
"""What says to kustomize how to change the files beside it. It need not say of what kind it is, so it goes by its name."""
_SETTLE_MS = 20  # a burst of writes (git checkout, an editor's rename) arrives as one change
_LOOK_ANYWAY_MS = 1000
GONE_AFTER_S = 0.8
"""So long nothing has been written when what is not there any more counts as deleted."""
GONE_AT_LAST_S = 10.0
"""However much else is written meanwhile."""
_NOTHING: Final[Mapping[str, tuple[Object, ...]]] = MappingProxyType({})
_WATCH_AGAIN_S = 0.5  # a path that is not there cannot be watched: look again


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed since the last time (None: gone), and every problem that there is now. `kept`, by path, is what is in
    force though its file, which is broken or cannot be read, does not say it now."""

    objects: Mapping[ObjectKey, Object | None]
    problems: tuple[Problem | SourceProblem, ...]
    kept: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)


class FolderProvider:
    """Owns what was read from `paths` (files or folders, searched recursively). `kept` is what an earlier one kept, `ahead`
    what has been read for this one already."""

    def __init__(
        self,
        paths: Sequence[Path],
        kept: Mapping[str, tuple[Object, ...]] = _NOTHING,
        ahead: ReadAhead = ReadAhead(),  # noqa: B008  # nothing was read, and so nothing is taken out of it
    ) -> None:
        self.paths = tuple(paths)
        self._ahead = ahead
        self._files = FileSet()
        self._stamps: dict[str, Stamp] = {}
        for path, objects in kept.items():
            if any(Path(path).is_relative_to(root) for root in self.paths):
                self._files = self._files.hold(path, objects)
                self._stamps[path] = ()  # what was read is no more known
        self._emptied: dict[str, Stamp] = {}
        self._written = 0.0
        self._missing: dict[str | ObjectKey, float] = {}  # files and objects that are not there any more, and since when
        self._objects: dict[ObjectKey, Object] = {}
        self._problems: tuple[Problem | SourceProblem, ...] = ()

    def scan(self, now: float = 0.0) -> Changes:
        """Read what has changed on disk; `now` is in seconds. Blocking; `watch` calls it in a thread."""
        present, problems, away = self._list()
        unread: set[str] = set()
        ended: set[ObjectKey] = set()  # with their file, which has been waited for long enough
        read: dict[str, LoadResult] = {}
        for path, stamp in present.items():
            if path in self._missing and path not in self._emptied:
                del self._missing[path]
            if self._stamps.get(path) == stamp:
                continue
            if self._emptied.get(path) != stamp:
                self._written = now
            try:
                said = self._ahead.take(path, stamp) or read_file(path)
            except (OSError, ValueError) as error:
                problems.append(_unreadable(Path(path), error))
                unread.add(path)
                continue
            if said is None and path in self._files.files and not self._is_gone(path, now):
                self._emptied[path] = stamp  # to be written anew, most likely
                continue
            if said is None and path in self._emptied:
                ended.update(self._files.files[path].objects)
            read[path] = said or LoadResult([], [])
            self._stamps[path] = stamp
            self._emptied.pop(path, None)
            self._missing.pop(path, None)
        gone: set[str] = set()
        for path in [path for path in self._stamps if path not in present]:
            if any(Path(path).is_relative_to(root) for root in away):
                unread.add(path)
            elif self._is_gone(path, now):
                ended.update(self._files.files[path].objects)
                gone.add(path)
                del self._stamps[path]
        self._files = self._files.put(read).remove(gone)
        objects, doubles = self._files.objects({path for path in self._missing if isinstance(path, str)})
        for key in self._objects.keys() & self._missing.keys() & objects.keys():
            del self._missing[key]
        for key in [key for key in self._objects if key not in objects and key not in ended and not self._is_gone(key, now)]:
            objects[key] = self._objects[key]
        changes = difference(self._objects, objects)
        self._objects = objects
        self._problems = (*problems, *self._files.problems(), *doubles)
        kept = {path: tuple(self._files.files[path].objects.values()) for path in unread if path in self._files.files}
        return Changes(changes, self._problems, {**self._files.held(), **kept})

    def _is_gone(self, what: str | ObjectKey, now: float) -> bool:
        """Whether what is not there counts as deleted by now."""
        since = self._missing.setdefault(what, now)
        gone = now - max(since, self._written) >= GONE_AFTER_S or now - since >= GONE_AT_LAST_S
        if gone:
            del self._missing[what]
        return gone

    async def watch(self) -> AsyncGenerator[Changes, None]:
        """The first state at once, then a `Changes` whenever objects or problems are different."""
        clock = asyncio.get_running_loop().time
        first = await asyncio.to_thread(self.scan, clock())
        yield first
        said = first.problems
        while True:
            async for _ in self._touched():
                changes = await asyncio.to_thread(self.scan, clock())
                if changes.objects or changes.problems != said:
                    said = changes.problems
                    yield changes

    async def _touched(self) -> AsyncIterator[None]:
        """Something may have changed under the paths. Ends where they have to be watched anew."""
        watched = [_identity(path) for path in self.paths]
        if None not in watched:
            with contextlib.suppress(OSError):  # gone again, or more folders than the kernel lets us watch: looked at below
                async with contextlib.aclosing(_watch(self.paths)) as touches:
                    async for _ in touches:
                        yield None
                        if [_identity(path) for path in self.paths] != watched:
                            return  # the folder itself was replaced: its watch is on the old one
        yield None
        await asyncio.sleep(_WATCH_AGAIN_S)

    def _list(self) -> tuple[dict[str, Stamp], list[Problem | SourceProblem], list[Path]]:
        """Stamps of the files that there are, what is wrong, and the folders that could not be looked into."""
        present: dict[str, Stamp] = {}
        problems: list[Problem | SourceProblem] = []
        away: list[Path] = []
        for root in self.paths:
            found, closed = walk(root, set())
            for closed_path, error in closed:
                # Of links that lead nowhere those are of interest that have said something, or should by their name.
                astray = closed_path != root and not os.path.exists(closed_path)
                if astray and not closed_path.name.endswith(SUFFIXES) and not self._knows(closed_path):
                    continue
                away.append(closed_path)
                problems.append(_unreadable(closed_path, error))
            for path in sorted(found):
                if path.endswith(KUSTOMIZATIONS) and os.path.basename(path) in KUSTOMIZATIONS:
                    problems.append(_passed_over(path))
                    continue
                if len(present) >= MAX_FILES:
                    problems.append(
                        SourceProblem(str(root), f"holds more than {MAX_FILES} manifest files; the rest is ignored")
                    )
                    break
                try:
                    present[path] = stamp_of(path)
                except FileNotFoundError:
                    continue  # deleted since it was listed
                except OSError as error:
                    away.append(Path(path))
                    problems.append(_unreadable(Path(path), error))
        return present, problems, away

    def _knows(self, folder: Path) -> bool:
        """Whether anything was read below it."""
        return any(path.startswith(f"{folder}{os.sep}") for path in self._stamps)


async def _watch(paths: Sequence[Path]) -> AsyncGenerator[None, None]:
    """Once when the watch stands, then whenever something has happened, and every few seconds for what no watch sees."""
    # A file is watched through its folder: editors replace files by renaming another over them.
    folders = [path for path in paths if path.is_dir()]
    events = watchfiles.awatch(
        *{*folders, *(path.parent for path in paths if path not in folders)},
        watch_filter=None,
        step=_SETTLE_MS,
        debounce=400,
        rust_timeout=_LOOK_ANYWAY_MS,
        yield_on_timeout=True,
        recursive=bool(folders),
        ignore_permission_denied=True,
    )
    first = asyncio.ensure_future(anext(events))
    try:
        await asyncio.sleep(0)  # the first step of `events` sets the watch up
        yield
        await first
        yield
        async for _ in events:
            yield
    finally:
        first.cancel()


def _passed_over(kustomization: str) -> Problem:
    message = (
        'is for kustomize and is passed over; the files beside it are taken as they are, not as "kustomize build" makes them'
    )
    return Problem(kustomization, 0, "", "", "", message, "warning")


def _unreadable(path: Path, error: OSError | ValueError) -> SourceProblem:
    reason = error.strerror if isinstance(error, OSError) else error
    what = "is not there" if isinstance(error, FileNotFoundError) else "cannot be read"
    return SourceProblem(str(path), f"{what} ({reason}); what it said before stays in force")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which folder stands at a path; a file is looked at through its folder, so any will do. None where there is nothing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino if stat.S_ISDIR(status.st_mode) else 0

"""Manifest files on disk: which there are below a path, the stamp by which a change of one is seen, and what one says.

Without a state: what was read before, and what of it stays in force, is for `folder` to know.
"""

import os
from pathlib import Path

from gwanmun.api.load import LoadResult, load_text

SUFFIXES = (".yaml", ".yml", ".json")
MAX_FILES = 10_000
MAX_FILE_BYTES = 64 * 1024 * 1024
Stamp = tuple[int, ...]
"""Is another one once the file is changed or replaced."""


def stamp_of(path: str) -> Stamp:
    """The stamp of the file that the path means now. Raises OSError."""
    status = os.stat(path)
    # The last time is one that nobody can set back, as `cp -p` does with the first.
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_ctime_ns


def read_file(path: str) -> LoadResult | None:
    """What a file says; None where there is nothing in it. Raises OSError, and ValueError for one that is too large."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise ValueError(f"{size} bytes, more than the {MAX_FILE_BYTES} that a manifest file may have")
        text = file.read()
    return load_text(text, path) if text.strip() else None


def walk(root: Path, seen: set[tuple[int, int]]) -> tuple[list[str], list[tuple[Path, OSError]]]:
    """The manifest files of a path, and what in it could not be looked into: folders, and links that lead nowhere. Hidden
    entries are passed over, a ConfigMap volume's `..data` among them: what it holds is reached through the visible links.
    Links to folders are followed, but no folder is looked at twice: `seen` are those that were.

    Files are text here: for thousands, at every change, paths as objects would take longer than looking at the files.
    """
    if root.is_file():
        return [str(root)], []
    within = str(root / "-")[:-1]
    found: list[str] = []
    closed: list[tuple[Path, OSError]] = []
    try:
        status = os.stat(root)
        if (identity := (status.st_dev, status.st_ino)) in seen:
            return [], []
        seen.add(identity)
        # Folders themselves come before links to them, so that a file has the same path every time.
        entries = sorted(os.scandir(root), key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError as error:
        return [], [(root, error)]
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            folder = root / entry.name
            below, closed_below = walk(folder, seen)
            found += below
            # A folder that went away since it was listed is deleted, not closed to us.
            closed += [item for item in closed_below if item[0] != folder or not isinstance(item[1], FileNotFoundError)]
        elif entry.is_symlink() and (astray := _why_astray(entry)):
            closed.append((root / entry.name, astray))
        elif entry.name.endswith(SUFFIXES) and _may_be_file(entry):
            found.append(within + entry.name)
    return found, closed


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _why_astray(link: os.DirEntry[str]) -> OSError | None:
    """Why a link leads to nothing, in circles, or into what is closed to us; None where it leads somewhere."""
    try:
        link.stat()
    except OSError as error:
        return error
    return None


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return True  # in what is closed to us: whoever looks at it is told

"""The access log of the gateway on this machine: kept small, and searched for one request."""

import asyncio
import json
from pathlib import Path
from typing import Any

from gwanmun.infra.admin import Admin

_LARGEST_BYTES = 64 * 1024 * 1024
_LOOK_EVERY_S = 30.0


async def keep_small(path: Path, admin: Admin) -> None:
    """Move the log aside when it has grown large; one older file is kept."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        if await asyncio.to_thread(_move_if_large, path):
            await admin.reopen_logs()


def _move_if_large(path: Path) -> bool:
    large = path.exists() and path.stat().st_size > _LARGEST_BYTES
    if large:
        path.replace(path.with_suffix(".log.1"))
    return large


def find_request(path: Path, request_id: str) -> dict[str, Any] | None:
    """The entry of a request, from the newest log that has it."""
    for file in (path, path.with_suffix(".log.1")):
        if not file.exists():
            continue
        found = None
        with file.open("rb") as lines:
            for line in lines:
                if request_id.encode() in line:
                    found = _entry(line, request_id) or found
        if found is not None:
            return found
    return None


def _entry(line: bytes, request_id: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None  # the last line may be half written
    return entry if isinstance(entry, dict) and entry.get("request_id") == request_id else None

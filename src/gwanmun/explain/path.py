"""A request's path as routes see it: Envoy's `normalize_path`, with repeated slashes and escaped ones kept (`xds/http.py`)."""

import re
from typing import Final

_SENDABLE: Final = re.compile(r"/[!-~]*")
_DOTS_WITH_PARAMETERS: Final = re.compile(r"(?<=[/\\])(\.\.?);[^/\\]*")
_ESCAPED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9._~-]")
_UNSAFE: Final = re.compile(r'["<>^`{|}]')


def normalized(path: str) -> str | None:
    """None where the gateway answers 400: what HTTP cannot carry unescaped, or an escaped zero byte."""
    if _SENDABLE.fullmatch(path) is None or "%00" in path:
        return None
    path = _DOTS_WITH_PARAMETERS.sub(r"\1", path).replace("\\", "/")
    path = _ESCAPED.sub(_without_need, path)
    path = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", path)
    return _without_dots(path)


def _without_need(found: re.Match[str]) -> str:
    """What need not be escaped (RFC 3986, 2.3) as itself; the rest as it came, in whatever case."""
    character = chr(int(found[1], 16))
    return character if _UNRESERVED.fullmatch(character) else found[0]


def _without_dots(path: str) -> str:
    """RFC 3986, 5.2.4, over segments: an empty one counts as one."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)

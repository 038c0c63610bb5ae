"""The model in a JSON body, by the rules of the native module's scanner (`native/src/scan.rs`, `text.rs`).

Those are not the rules of Python's parser: outside of strings the whole grammar holds (no NaN, no byte order mark), inside of
those that are not looked at anything goes.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_MAX_DEPTH: Final = 1024
_LONGEST: Final = 1024
"""Bytes of a name."""

_SPACE: Final = rb"[ \n\r\t]*+"
_TEXT: Final = rb'"(?P<text>(?:[^"\\]++|\\.)*+)"'
_SCALAR: Final = rb"(?P<scalar>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)"
_TOKEN: Final = re.compile(_SPACE + rb"(?:(?P<mark>[][{}:,])|" + _TEXT + rb"|" + _SCALAR + rb"|(?P<end>\Z))", re.DOTALL)
_ELEMENTS: Final = re.compile(rb"(?:" + _SPACE + rb"(?:" + _TEXT + rb"|" + _SCALAR + rb")" + _SPACE + rb",)*+", re.DOTALL)
"""What is simple in an array, each with its comma: prompts may be arrays of millions of tokens."""

_PIECE: Final = re.compile(rb'(?P<plain>[^\\\x00-\x1f]++)|(?P<units>(?:\\u[0-9a-fA-F]{4})++)|\\(?P<short>["\\/bfnrt])')
_SHORT: Final = dict(zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True))


class Found(NamedTuple):
    """The model, or why there is none, as a sentence for people."""

    model: str | None
    problem: str = ""


class _NotJsonError(Exception):
    """With the place where the body breaks the grammar."""


class _Text(NamedTuple):
    """A string of the body without its escapes. `whole` is False where half a surrogate pair is in it."""

    content: bytes
    whole: bool


def model_in(body: bytes) -> Found:
    """What the top-level `model` says."""
    if not body:
        return Found(None, "the request body is empty")
    try:
        models = list(_models(body))
    except _NotJsonError as error:
        return Found(None, f"the request body is not valid JSON ({error})")
    match models:
        case []:
            return Found(None, 'the request body has no top-level "model"')
        case [None]:
            return Found(None, '"model" in the request body is not a string')
        case [_Text() as text]:
            return _name(text)
        case _:
            return Found(None, '"model" appears twice in the request body')


def _models(body: bytes) -> Iterator[_Text | None]:
    """The values of all top-level keys `model`; None is one that is no string."""
    at = 0
    opened: list[bytes] = []
    wanted = "value"
    is_model = False
    while True:
        elements = _ELEMENTS.match(body, at) if wanted in _BEFORE_VALUE and opened[-1:] == [b"["] else None
        if elements is not None and elements.end() > at:
            at, wanted = elements.end(), "value"
        token = _TOKEN.match(body, at)
        if token is None:
            raise _NotJsonError(f"unexpected text at byte {at}")
        kind, start, at = token.lastgroup, at, token.end()
        mark = token["mark"]
        if kind == "end":
            if wanted != "end":
                raise _NotJsonError(f"unexpected end at byte {at}")
            return
        begins_value = wanted in _BEFORE_VALUE and mark not in (b"]", b"}", b":", b",")
        if begins_value and is_model:
            yield _unescaped(token["text"], start) if kind == "text" else None
        if begins_value and mark in (b"[", b"{"):
            if len(opened) == _MAX_DEPTH:
                raise _NotJsonError(f"more than {_MAX_DEPTH} levels of nesting at byte {start}")
            opened.append(mark)
            is_model, wanted = False, "first key" if mark == b"{" else "first element"
        elif begins_value:
            is_model, wanted = False, _after(opened)
        elif wanted in ("key", "first key") and kind == "text":
            is_model = len(opened) == 1 and _unescaped(token["text"], start) == _Text(b"model", whole=True)
            wanted = "colon"
        elif wanted == "colon" and mark == b":":
            wanted = "value"
        elif wanted == "after" and mark == b",":
            wanted = "key" if opened[-1] == b"{" else "value"
        elif (wanted, mark) in _CLOSING and _PAIRS[opened[-1]] == mark:
            opened.pop()
            wanted = _after(opened)
        else:
            raise _NotJsonError(f"unexpected text at byte {start}")


_BEFORE_VALUE: Final = ("value", "first element")
_PAIRS: Final = {b"{": b"}", b"[": b"]"}
_CLOSING: Final = {("after", b"}"), ("after", b"]"), ("first key", b"}"), ("first element", b"]")}


def _after(opened: list[bytes]) -> str:
    return "after" if opened else "end"


def _unescaped(raw: bytes, start: int) -> _Text:
    """A string that is looked at; past the longest name it is not looked at any more."""
    content, whole, at = b"", True, 0
    while at < len(raw) and len(content) <= _LONGEST:
        piece = _PIECE.match(raw, at)
        if piece is None:
            raise _NotJsonError(f"unexpected text in the string at byte {start}")
        at = piece.end()
        if units := piece["units"]:
            text = bytes.fromhex(units.replace(rb"\u", b"").decode()).decode("utf-16-be", errors="surrogatepass")
            whole = whole and not any("\ud800" <= character <= "\udfff" for character in text)
            content += text.encode(errors="ignore")
        else:
            content += piece["plain"] or bytes([_SHORT[piece["short"][0]]])
    return _Text(content, whole)


def _name(text: _Text) -> Found:
    if len(text.content) > _LONGEST:
        return _unusable(f"is longer than {_LONGEST} bytes")
    try:
        name = text.content.decode()
    except UnicodeDecodeError:
        return _unusable("is not valid Unicode")
    if not text.whole:
        return _unusable("is not valid Unicode")
    if not name:
        return _unusable("is empty")
    if any(character < " " or character == "\x7f" for character in name):
        return _unusable("contains a control character")
    if name != name.strip(" "):
        return _unusable("starts or ends with a space")
    return Found(name)


def _unusable(why: str) -> Found:
    return Found(None, f'"model" in the request body {why}')

"""The list/watch machine of one kind: takes pages and lines, gives changes. No await, clock or logging.

    absent or new --list--> pages ... last page --watch--> lines ... 410 --> list again

While it lists again everything that was known stays in force; what the new list does not name goes with its last page.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from gwanmun.api import Object
from gwanmun.api.decode import ListMeta, decode_json, decode_json_list
from gwanmun.api.kinds import Kind
from gwanmun.kube import UNREADABLE, Present, UnreachableError
from gwanmun.names import ObjectKey
from gwanmun.providers.kubernetes.trim import present, trimmed
from gwanmun.resources import key_of

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""etcd's own limit is 1.5 MiB an object; a line that is longer than this is no event."""


class ExpiredError(Exception):
    """The API server has forgotten the version we are at: list again."""


class WatchError(Exception):
    """The watch cannot go on from here; try again."""


@dataclass(slots=True)
class Changes:
    """What is different now. None: gone. `unreadable` are objects that do not fit their kind, with what is wrong."""

    objects: dict[ObjectKey, Object | None] = field(default_factory=dict)
    present: dict[ObjectKey, Present | None] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


class Lines:
    """Puts the pieces of a watch together to lines again; a piece may end anywhere, even inside a character."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._length = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that this piece completes. WatchError where a line does not end."""
        if b"\n" not in piece:
            self._rest.append(piece)
            self._length += len(piece)
            if self._length > MAX_LINE_BYTES:
                raise WatchError(f"an event of more than {MAX_LINE_BYTES} bytes")
            return
        first, *lines = piece.split(b"\n")
        lines.insert(0, b"".join((*self._rest, first)))
        rest = lines.pop()
        self._rest, self._length = [rest], len(rest)
        yield from (line for line in lines if line.strip())


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Head(msgspec.Struct, rename="camel"):
    """Of any object, and of the Status that an ERROR event carries."""

    metadata: _Meta = _Meta()
    code: int = 0
    message: str = ""


class _Items(msgspec.Struct):
    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)
_HEAD: Final = msgspec.json.Decoder(_Head)


class Replica:
    """What is known of one kind. `version` is where to watch from; empty means that a list has to come first.

    Which API version is listed is the caller's business: all of a kind's versions have the same type.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.version = ""
        self.next_page = ""
        self.spoiled: dict[ObjectKey, str] = {}  # those that do not fit their kind at the moment, and why
        self._known: dict[ObjectKey, str] = {}  # resourceVersion
        self._seen: set[ObjectKey] = set()

    def __len__(self) -> int:
        return len(self._known)

    def expire(self) -> None:
        """Begin a list from the start."""
        self.version = self.next_page = ""
        self._seen = set()

    def page(self, data: bytes) -> Changes:
        """A page of the list; after it either `next_page` or `version` is set. UnreachableError where it is no list: then
        begin it anew."""
        items, metadata, changes = self._decode_page(data)
        for obj in items:
            self._seen.add(self._put(obj, changes))
        self.next_page = metadata.continue_
        if not self.next_page:
            for key in [key for key in self._known if key not in self._seen]:
                self._drop(key, changes)
            self.spoiled = {key: why for key, why in self.spoiled.items() if key in self._seen}
            self.version, self._seen = metadata.resource_version, set()
        return changes

    def line(self, data: bytes) -> Changes:
        """An event of the watch. Raises ExpiredError or WatchError."""
        changes = Changes()
        try:
            event = _EVENT.decode(data)
            head = _HEAD.decode(event.object)
        except UNREADABLE as error:
            raise WatchError(f"not an event: {error}") from None
        if event.type == "ERROR":
            if head.code == 410:
                raise ExpiredError(head.message)
            raise WatchError(head.message or f"code {head.code}")
        if event.type == "DELETED":
            self._drop(self._key(head.metadata), changes)
        elif event.type in ("ADDED", "MODIFIED"):
            try:
                self._put(decode_json(bytes(event.object), self.kind), changes)
            except UNREADABLE as error:
                self._spoil(head.metadata, error, changes)
        if head.metadata.resource_version:
            self.version = head.metadata.resource_version
        return changes

    def empty(self) -> Changes:
        """The kind is not there any more."""
        changes = Changes()
        for key in list(self._known):
            self._drop(key, changes)
        self.expire()
        return changes

    def _decode_page(self, data: bytes) -> tuple[list[Object], ListMeta, Changes]:
        try:
            page = decode_json_list(data, self.kind)
        except UNREADABLE:
            return self._decode_items(data)
        return list(page.items or ()), page.metadata, Changes()

    def _decode_items(self, data: bytes) -> tuple[list[Object], ListMeta, Changes]:
        """One by one: the others are not to suffer from one that does not fit."""
        changes = Changes()
        objects: list[Object] = []
        try:
            raw = msgspec.json.decode(data, type=_Items)
            heads = [_HEAD.decode(item) for item in raw.items or ()]
        except UNREADABLE as error:  # cut off on its way, or from something else in the API server's place
            raise UnreachableError(f"the list of {self.kind.plural} cannot be read: {error}") from None
        for item, head in zip(raw.items or (), heads, strict=True):
            try:
                objects.append(decode_json(bytes(item), self.kind))
            except UNREADABLE as error:
                self._spoil(head.metadata, error, changes)
                self._seen.add(self._key(head.metadata))
        return objects, raw.metadata, changes

    def _put(self, obj: Object, changes: Changes) -> ObjectKey:
        key = key_of(obj)
        version = obj.metadata.resource_version
        self.spoiled.pop(key, None)
        if self._known.get(key) != version or not version:
            self._known[key] = version
            changes.objects[key] = trimmed(obj)
            state = present(obj)
            if state is not None:
                changes.present[key] = state
        return key

    def _drop(self, key: ObjectKey, changes: Changes) -> None:
        self.spoiled.pop(key, None)
        if self._known.pop(key, None) is not None:
            changes.objects[key] = None
            changes.present[key] = None

    def _spoil(self, metadata: _Meta, error: Exception, changes: Changes) -> None:
        """What the object said before stays in force, as with a file that cannot be read."""
        key = self._key(metadata)
        self.spoiled[key] = changes.unreadable[str(key)] = str(error)

    def _key(self, metadata: _Meta) -> ObjectKey:
        type_: Any = self.kind.type
        return ObjectKey(type_.GROUP, type_.KIND, metadata.namespace, metadata.name)

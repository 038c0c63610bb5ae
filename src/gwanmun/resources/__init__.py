"""What the user has declared: one immutable, indexed picture of all objects, the only input of `resolve`."""

from gwanmun.resources.snapshot import IndexKey, Snapshot, key_of

__all__ = ["IndexKey", "Snapshot", "key_of"]

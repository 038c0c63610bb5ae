"""The KV cache of one replica: a fixed number of blocks, shared by hash, evicted least recently used.

A block is in exactly one of three states: pinned (hashed, used by one or more running requests), private (reserved by one
request, contents not yet known or not shareable) or idle (hashed, used by nobody, may be evicted). Invariant:
pinned + private + idle <= capacity.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Lease:
    """The blocks that one running request holds. Only `BlockPool` changes it."""

    pinned: list[int] = field(default_factory=list)
    private: int = 0


class BlockPool:
    """Blocks of one replica. All methods take time proportional to the blocks they are given."""

    def __init__(self, capacity: int) -> None:
        assert capacity > 0
        self.capacity = capacity
        self._users: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._private = 0

    @property
    def held(self) -> int:
        """Blocks that running requests hold or have reserved."""
        return len(self._users) + self._private

    @property
    def idle(self) -> int:
        """Cached blocks that nobody uses: they count as free."""
        return len(self._idle)

    def matched(self, hashes: Sequence[int]) -> int:
        """How many leading `hashes` are in the cache without a hole."""
        for position, block in enumerate(hashes):
            if block not in self._users and block not in self._idle:
                return position
        return len(hashes)

    def lease(self, hits: Sequence[int], private: int) -> Lease | None:
        """Pin `hits` (all cached) and reserve `private` more; None, and nothing changed, when they do not fit."""
        woken = sum(1 for block in hits if block in self._idle)
        if self.held + woken + private > self.capacity:
            return None
        for block in hits:
            self._idle.pop(block, None)
            self._users[block] = self._users.get(block, 0) + 1
        self._private += private
        while self.held + len(self._idle) > self.capacity:
            self._idle.popitem(last=False)
        return Lease(pinned=list(hits), private=private)

    def publish(self, lease: Lease, block: int) -> None:
        """One private block of `lease` is computed and gets its hash. A duplicate of a cached block stays private."""
        assert lease.private > 0
        if block in self._users or block in self._idle:
            return
        lease.private -= 1
        self._private -= 1
        lease.pinned.append(block)
        self._users[block] = 1

    def release(self, lease: Lease) -> None:
        """The request ended. The end of its prompt becomes the first to be evicted, its beginning the last (as in vLLM)."""
        for block in reversed(lease.pinned):
            self._users[block] -= 1
            if self._users[block] == 0:
                del self._users[block]
                self._idle[block] = None
        self._private -= lease.private
        lease.pinned, lease.private = [], 0

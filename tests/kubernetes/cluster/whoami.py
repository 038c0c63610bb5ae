"""Stands in for coredns with its `whoami` plugin: answers every A question on UDP port 53, which is all the suite asks."""

from __future__ import annotations

import asyncio

from . import dns


async def main() -> None:
    """Serves until it is ended."""
    await dns.serve("0.0.0.0", lambda name: ["192.0.2.1"])
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

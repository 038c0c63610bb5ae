"""Distance between zones: delays what crosses them and counts it (`python -m ...zones STATE`; only with `zone_delay`).

Routing rules send every packet from one zone's bridge to another zone's pods to a TUN device; this process holds it for the
delay and gives it back, whereupon the kernel forwards it. User space, because kernels for small machines lack netem. Good for
some 20,000 packets a second; what comes faster is dropped by the device's queue, as on a long line. Traffic between
`exec` or a LoadBalancer address and pods is not delayed: it comes from outside all zones.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import struct
import subprocess
import sys
from collections import Counter, deque
from pathlib import Path

from .network import ZONES, subnet

_DEVICE = "zones"
_TABLE = "100"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
_REPORT_EVERY = 0.2
_ZONE_OF_SUBNET = {int(subnet(zone).split(".")[1]): zone for zone in ZONES}


def open_device() -> int:
    """The TUN device with the routes that lead to it. OSError or CalledProcessError where the machine has no TUN."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    commands = [f"link set {_DEVICE} up txqueuelen 10000", f"route replace default dev {_DEVICE} table {_TABLE}"]
    commands += [
        f"rule add iif {source} to {subnet(target)} lookup {_TABLE}" for source in ZONES for target in ZONES if source != target
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
    return device


class Line:
    """Every packet comes out `delay` seconds after it went in, in order. `crossed` counts bytes by "from>to"."""

    def __init__(self, device: int, delay: float) -> None:
        self.crossed: Counter[str] = Counter()
        self._device = device
        self._delay = delay
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._loop = asyncio.get_running_loop()

    def receive(self) -> None:
        """Takes in all packets that are there."""
        while True:
            try:
                packet = os.read(self._device, 65536)
            except BlockingIOError:
                return
            zones = _zones_of(packet)
            if zones is not None:
                self.crossed[zones] += len(packet)
                if not self._waiting:
                    self._loop.call_later(self._delay, self._release)
                self._waiting.append((self._loop.time() + self._delay, packet))

    def _release(self) -> None:
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            os.write(self._device, self._waiting.popleft()[1])
        if self._waiting:
            self._loop.call_at(self._waiting[0][0], self._release)


def _zones_of(packet: bytes) -> str | None:
    """ "from>to" of an IPv4 packet between pods; None for anything else, which is dropped."""
    if packet[0] >> 4 != 4:
        return None
    source, target = _ZONE_OF_SUBNET.get(packet[13]), _ZONE_OF_SUBNET.get(packet[17])
    return f"{source}>{target}" if source and target else None


async def main() -> None:
    """Runs the lines between the zones of the cluster whose state folder is the first argument."""
    state = Path(sys.argv[1])
    delay: float = json.loads((state / "options.json").read_text())["zone_delay"]
    device = open_device()
    line = Line(device, delay)
    asyncio.get_running_loop().add_reader(device, line.receive)
    report, new = state / "crossed.json", state / "crossed.json.new"
    while True:
        new.write_text(json.dumps(line.crossed))
        new.rename(report)
        await asyncio.sleep(_REPORT_EVERY)


if __name__ == "__main__":
    asyncio.run(main())

"""Run benchmarks: `python benchmarks/run.py [name ...]`, all of them without a name.

They take minutes, use loopback only, and print ratios and goals; nothing fails because a machine is slow. They are no tests.
"""

import importlib
import sys
import time

from machine import commit, description

NAMES = ("data_plane", "peers", "propagation", "cold_start", "takeover", "topology")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names or NAMES:
        benchmark = importlib.import_module(name)
        print(f"## {name}\n\n{(benchmark.__doc__ or '').strip()}\n", flush=True)
        before, started = description(), time.perf_counter()
        found = benchmark.run()
        print(
            f"{found}\n\nBefore: {before}\nAfter: {description()}; {time.perf_counter() - started:.0f} s; commit {commit()}\n",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

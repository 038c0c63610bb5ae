"""Envoy is never left alone: it ends with the program that has started it, even where that is killed."""

import asyncio
import signal
import sys
import textwrap

from gwanmun.infra.processes import identify, wait_ended

PARENT = textwrap.dedent("""
    import asyncio, sys
    from gwanmun.infra.fleet.child import start_child

    async def main():
        child = await start_child([sys.executable, "-c", "import time; print('runs', flush=True); time.sleep(60)"])
        print(child.pid, flush=True)
        await child.wait()

    asyncio.run(main())
""")


async def test_a_child_ends_with_a_parent_that_is_killed() -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with asyncio.timeout(30):
        said = {(await parent.stdout.readline()).strip() for _ in range(2)}  # its id, and that it runs
        (pid,) = said - {b"runs"}
        child = identify(int(pid))
        assert child is not None
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
        await wait_ended(child)

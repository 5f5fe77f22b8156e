"""Measures how fast many clients play at once over WebSockets; the end of `make bench`.

Each client starts from a prompt and presses again as soon as the frame arrives. All clients share one process, so that
they leave the server as much of the machine as they can.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from websockets.asyncio.client import connect

PLAY = "from genie.cli import app; app()"  # what the command `genie` runs, from this checkout
NUM_CLIENTS = (1, 8, 20, 64)
SECONDS = 10  # measured, after every client has received `WARM_UP` frames
WARM_UP = 2


@contextmanager
def running_server(source: str | None) -> Iterator[str]:
    """Yields the address of the WebSocket of a server, in a process of its own.

    Args:
        source: world to play, as for `genie play`; None is the shipped one.
    """
    command = [sys.executable, "-c", PLAY, "play", "--no-open", "--port", "0"]
    command += ["--world", source] if source else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield server.stdout.readline().split()[2].replace("http", "ws") + "/play"
    finally:
        server.terminate()
        server.wait()


async def measure_clients(address: str, num_clients: int) -> list[float]:
    """Frames per second of each of some clients that play at the same time."""
    all_ready, num_ready = asyncio.Event(), 0

    async def play(number: int) -> float:
        nonlocal num_ready
        async with connect(address, compression=None, open_timeout=60) as socket:
            hello = json.loads((await socket.recv()).partition(b"\n")[0])  # pyright: ignore[reportArgumentType]
            num_actions, num_prompts = len(hello["buttons"]), len(hello["prompts"])

            async def press(step: int) -> None:
                await socket.send(json.dumps({"kind": "press", "action": (number + step // 4) % num_actions}))
                reply = await socket.recv()
                assert json.loads(reply.partition(b"\n")[0])["kind"] == "frame"  # pyright: ignore[reportArgumentType]

            await socket.send(json.dumps({"kind": "prompt", "index": number % num_prompts}))
            await socket.recv()
            for step in range(WARM_UP):
                await press(step)
            num_ready += 1
            if num_ready == num_clients:
                all_ready.set()
            await all_ready.wait()
            start, frames = time.perf_counter(), 0
            while time.perf_counter() - start < SECONDS:
                await press(WARM_UP + frames)
                frames += 1
            return frames / (time.perf_counter() - start)

    return await asyncio.gather(*map(play, range(num_clients)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--world", help="as of `genie play`; without: the shipped one")
    with running_server(parser.parse_args().world) as address:
        for num_clients in NUM_CLIENTS:
            rates = asyncio.run(measure_clients(address, num_clients))
            print(
                f"{num_clients} clients: {sum(rates):.1f} frames/s in all, {min(rates):.2f} to {max(rates):.2f} each",
                flush=True,
            )


if __name__ == "__main__":
    main()

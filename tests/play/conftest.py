"""A real server on a free port of this machine, and a client that speaks to it as the page does."""

import json
import signal
import socket
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import uvicorn
from websockets.sync.client import connect

from genie.play.server import Arcade, make_app, server_config

# A shell's background jobs ignore Ctrl-C; child processes that tests end by Ctrl-C would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Client:
    """A WebSocket client; `ask` sends a message and parses its reply."""

    def __init__(self, address, **options):
        self._address, self._options = f"{address.replace('http', 'ws')}/play", options

    def __enter__(self):
        self._connecting = connect(self._address, **self._options)
        self.socket = self._connecting.__enter__()
        self.hello, self.prompts_MHWC = self.hear()
        return self

    def __exit__(self, *fault):
        self._connecting.__exit__(*fault)

    def tell(self, message):
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def hear(self):
        facts, _, content = self.socket.recv().partition(b"\n")
        facts = json.loads(facts)
        if "frames" in facts:
            size = facts.get("frame_size") or self.hello["frame_size"]
            content = np.frombuffer(content, np.uint8).reshape(facts["frames"], size, size, 3)
        return facts, content

    def ask(self, message):
        self.tell(message)
        return self.hear()


class CountingArcade(Arcade):
    """Counts the messages that it handles."""

    num_taken = 0

    async def _answer(self, session, received):
        self.num_taken += 1
        return await super()._answer(session, received)


@pytest.fixture(scope="package")
def arcade(shared_world, tiny_params):
    return CountingArcade(shared_world, tiny_params.collect, num_threads=2)


@contextmanager
def serving(arcade):
    """Yields the address of a server of this process."""
    server = uvicorn.Server(server_config(make_app(arcade)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="package")
def address(arcade):
    """Address of a server that runs until the tests of this folder end."""
    with serving(arcade) as address:
        yield address


@pytest.fixture
def client(address):
    """Returns a function that connects, with options of `websockets`: `with client() as it`."""
    return lambda at=address, **options: Client(at, **options)

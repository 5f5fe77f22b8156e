"""`genie play` as a process of its own."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def genie_play(tiny_world, tmp_path):
    """Returns a function that starts `genie play` on a small world, from the project's root."""
    tiny_world.save_pretrained(tmp_path / "world")
    processes = []

    def start(*words):
        command = [
            sys.executable,
            "-c",
            "from genie.cli import app; app()",
            "play",
            "--world",
            tmp_path / "world",
            *words,
        ]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, **pipes, text=True, cwd=ROOT, env=os.environ | {"DISPLAY": ""}))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_it_says_where_it_plays_and_ends_with_ctrl_c(genie_play, client):
    process = genie_play("--no-open", "--port", "0")
    said = process.stdout.readline()
    address = said.split()[2]
    assert said == f"play at {address} (stop with Ctrl-C)\n"
    assert address.startswith("http://127.0.0.1:")
    with client(address, origin=address) as it:
        assert it.ask({"kind": "prompt", "index": 2})[0]["kind"] == "frame"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    assert process.stderr.read().count("\n") == 1


def test_without_a_terminal_it_says_so(genie_play):
    process = genie_play("--terminal")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("genie play: no terminal here")
    assert said.count("\n") == 1

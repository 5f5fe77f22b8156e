"""Play in a real pseudo-terminal: a child process plays, and the test types and reads."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager

import numpy as np
import pytest

from genie.core.actions import game_actions
from genie.play.terminal import ENTER, LEAVE, TerminalError, help_lines, latent_action, play_in_terminal
from genie.world import WorldModel
from genie.world.controls import Button
from genie.world.half_blocks import half_blocks

NAMES = game_actions("coinrun").names

pytestmark = pytest.mark.slow

PLAYER = """
import sys
from genie.play.terminal import TerminalError, play_in_terminal
from genie.world import WorldModel
world = WorldModel.from_pretrained(sys.argv[1])
try:
    play_in_terminal(world)
except TerminalError as error:
    sys.exit(str(error))
print("over")
"""
SECONDS = 60  # without output before the child counts as dead
CELL = re.compile(r"(?:\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m)?▀")


def pixels(text):
    """Returns the frame that half blocks show, `(64, 64, 3)`."""
    colours, last = [], None
    for cell in CELL.finditer(text):
        last = tuple(map(int, cell.groups())) if cell[1] else last
        colours.append(last)
    cells = np.array(colours, np.uint8).reshape(32, 64, 2, 3)
    return cells.transpose(0, 2, 1, 3).reshape(64, 64, 3)


class Typist:
    """The test's end of the terminal."""

    def __init__(self, terminal):
        self.terminal = terminal

    def read_until(self, mark):
        """Returns all that the child writes, up to and including a mark."""
        read = b""
        while mark.encode() not in read:
            assert select.select([self.terminal], [], [], SECONDS)[0], f"no {mark!r} after {read[-200:]!r}"
            read += os.read(self.terminal, 65536)
        return read.decode()

    def screen(self):
        """Returns the next fully drawn screen."""
        return self.read_until("x quit\x1b[K\x1b[J")

    def type(self, keys):
        os.write(self.terminal, keys)

    def resize(self, columns, lines):
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def mode(self):
        return termios.tcgetattr(self.terminal)


@contextmanager
def playing(folder, columns=80, lines=40):
    """Runs a child that plays a world in a terminal of that size."""
    ours, theirs = pty.openpty()
    typist = Typist(ours)
    typist.resize(columns, lines)
    typist.child = subprocess.Popen(
        [sys.executable, "-c", PLAYER, str(folder)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    try:
        yield typist
    finally:
        typist.child.kill()
        typist.child.wait()
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def folder(tiny_world, tmp_path):
    """Folder of a saved world; saving rounds its weights."""
    tiny_world.save_pretrained(tmp_path / "castle")
    return tmp_path / "castle"


def test_half_blocks_show_every_pixel():
    frame_HWC = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    frame_HWC[:, 20:40] = frame_HWC[:1, 20:21]  # runs of one colour
    text = half_blocks(frame_HWC)
    assert np.array_equal(pixels(text), frame_HWC)
    assert text.count("\n") == 31
    assert len(text) < len(half_blocks(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)))


def test_keys_press_what_they_say(tiny_world):
    prompt = tiny_world.prompts[0]
    tiny_world.reset(prompt.frames_THWC, actions=prompt.actions)
    assert [latent_action(tiny_world, b"%d" % (latent + 1)) for latent in range(5)] == [0, 1, 2, 3, 4]
    assert [latent_action(tiny_world, key) for key in (b"6", b"0", b"a", b"\x1b", b"\x1b[B")] == [None] * 5
    keys = {b" ": 0, b"\x1b[D": 1, b"\x1b[C": 2, b"\x1b[A": 3, b"q": 4, b"e": 5}
    for key, effect in keys.items():
        assert latent_action(tiny_world, key) == tiny_world.steer(effect), NAMES[effect]


def test_keys_press_buttons_by_their_motion_where_arrows_have_no_names(moving_world):
    world = moving_world.fork()
    keys = {b"2": 1, b"\x1b[D": 1, b"\x1b[C": 0, b"\x1b[A": 3, b"\x1b[B": None, b" ": 2, b"q": None, b"l": None}
    assert {key: latent_action(world, key) for key in keys} == keys


def test_keys_of_other_names(with_buttons):
    world = with_buttons([Button(("stay", "down", "down_left", "fire"), (0.1, 0.2, 0.3, 0.4))] * 5)
    world.reset(world.prompts[0].frames_THWC)
    for effect, key in enumerate((b" ", b"\x1b[B", b"z", b"f")):
        assert latent_action(world, key) == world.steer(effect)


def test_only_keys_that_do_something_are_listed(tiny_world, moving_world, pictured_world):
    assert help_lines(tiny_world, 64) == [
        "1-5 buttons   ← left   → right   ↑ jump   space stay",
        "q jump left   e jump right   r again   n next start   x quit",
    ]
    assert help_lines(moving_world, 40) == [
        "1-5 buttons   ← as 2   → as 1   ↑ as 4",
        "space as 3   r again   n next start",
        "x quit",
    ]
    assert help_lines(pictured_world, 64) == ["1-5 buttons   r again   n next start   x quit"]


def test_a_world_without_true_actions_is_played(moving_world, tmp_path):
    moving_world.save_pretrained(tmp_path / "films")
    world = WorldModel.from_pretrained(tmp_path / "films")
    with playing(tmp_path / "films") as typist:
        opening = typist.screen()
        for legend in ("1 → 2.1 px", "2 ← 1.0 px", "3 · ", "4 ↗ 4.6 px", "5 → 0.5 px"):
            assert legend in opening
        world.reset(world.prompts[0].frames_THWC, actions=world.prompts[0].actions)
        for key, latent in ((b"\x1b[D", 1), (b"4", 3)):
            typist.type(key)
            screen = typist.screen()
            assert np.array_equal(pixels(screen), world.step(latent))
            assert world.buttons[latent].caption(latent) in screen


def test_a_game(folder):
    world = WorldModel.from_pretrained(folder)
    first, second = world.prompts[:2]

    def start(prompt):
        return world.reset(prompt.frames_THWC, actions=prompt.actions)

    with playing(folder) as typist:
        before = typist.mode()
        opening = typist.screen()
        assert ENTER.rpartition("\x1b")[0] in opening
        assert "press a key" in opening
        for latent, button in enumerate(world.buttons):
            assert f"{latent + 1} {button.action.replace('_', ' ')} {button.confidence:.0%}" in opening
        assert not typist.mode()[3] & (termios.ECHO | termios.ICANON)
        assert np.array_equal(pixels(opening), start(first))
        for key, pressed in ((b"3", 2), (b"\x1b[D", "left"), (b"\x1bOD", "left")):
            latent = pressed if pressed == 2 else world.steer(NAMES.index(pressed))
            typist.type(key)
            screen = typist.screen()
            assert np.array_equal(pixels(screen), world.step(latent))
            assert re.search(r"\d\.\d frames/s", screen)
            assert world.buttons[latent].caption(latent) in screen
        typist.type(b"r")
        assert np.array_equal(pixels(typist.screen()), start(first))
        typist.type(b"n")
        assert np.array_equal(pixels(typist.screen()), start(second))
        typist.resize(80, 24)
        typist.type(b"r")
        assert "▀" not in typist.read_until("font smaller")
        typist.resize(80, 40)
        typist.type(b"r")
        assert np.array_equal(pixels(typist.screen()), start(second))
        typist.type(b"x")
        assert "over" in typist.read_until("over").partition(LEAVE)[2]
        assert typist.mode() == before
        assert typist.child.wait(SECONDS) == 0


@pytest.mark.parametrize("end", [b"\x03", b"\x04", b"333x33", signal.SIGTERM, signal.SIGINT])
def test_whatever_ends_it_leaves_the_terminal_as_it_was(folder, end):
    with playing(folder) as typist:
        before = typist.mode()
        typist.screen()
        if isinstance(end, bytes):
            typist.type(end)
        else:
            typist.child.send_signal(end)
        typist.read_until(LEAVE)
        typist.child.wait(SECONDS)
        assert typist.mode() == before


@pytest.mark.parametrize(("columns", "lines"), [(63, 40), (80, 24)])
def test_a_small_terminal_is_told(folder, columns, lines):
    with playing(folder, columns, lines) as typist:
        said = typist.read_until("font smaller")
        assert f"has {columns} columns and {lines} lines, and the world needs 64 and 37" in said
        assert ENTER not in said
        assert typist.child.wait(SECONDS) == 1


def test_without_a_terminal_or_a_prompt_there_is_no_game(tiny_world):
    with pytest.raises(TerminalError, match="no terminal here"):
        play_in_terminal(tiny_world)
    tiny_world.prompts = ()
    with pytest.raises(TerminalError, match="no prompts to start from"):
        play_in_terminal(tiny_world)

"""`genie play --terminal`: plays a world in a text terminal, which also works over SSH.

A character cell shows two pixels: the upper as a half block, the lower as its background colour.
"""

import os
import re
import signal
import sys
import termios
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import numpy as np

from genie.core.actions import EFFECTIVE_ACTIONS
from genie.core.frames import FRAME_SHAPE
from genie.world.half_blocks import NEW_LINE, half_blocks
from genie.world.prompts import Prompt
from genie.world.world_model import WorldModel

EFFECT_KEYS = {
    b"\x1b[D": "left", b"\x1b[C": "right", b"\x1b[A": "jump", b"q": "jump_left", b"e": "jump_right", b" ": "stay",
}  # fmt: skip
LATENT_KEYS = b"123456789"
RESET, NEXT, QUIT = b"r", b"n", (b"x", b"\x03", b"\x04")  # Ctrl-C and Ctrl-D
HELP = (
    "1-{last} buttons   arrows go and jump   q, e jump left and right",
    "space stay   r again   n next start   x quit",
)
BUTTONS_A_LINE = 4
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[2J", "\x1b[0m\x1b[?25h\x1b[?1049l"  # the alternate screen, without a cursor


class TerminalError(ValueError):
    """The world cannot be played in this terminal; the message names the cause and the fix."""


def play_in_terminal(world: WorldModel, seed: int = 0) -> None:
    """Plays from the world's own prompts until the player quits. The terminal is restored however the game ends.

    Each key press dreams one frame. Of the keys pressed while a frame is dreamed, only the last counts, so that holding
    a key builds up no queue.

    Args:
        world: world to play.
        seed: seed of the sampling, the same at each reset.

    Raises:
        TerminalError: standard input or output is not a terminal, the terminal is too small, or the world has no
            prompts.
    """
    if not world.prompts:
        raise TerminalError("this world has no prompts to start from; `genie export` writes one that has")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise TerminalError("no terminal here: run it in one (over SSH, with `ssh -t`), or play in a browser")
    screen = _Screen(world)
    if screen.lacks_room():
        raise TerminalError(screen.lacks_room())
    with _raw_terminal(sys.stdin.fileno()):
        chosen = 0
        frame_HWC, doing = _start(world, world.prompts[chosen], seed)
        while True:
            screen.show(frame_HWC, doing)
            key = _last_key(sys.stdin.fileno())
            if key in QUIT:
                return
            if key in (RESET, NEXT):
                chosen = (chosen + (key == NEXT)) % len(world.prompts)
                frame_HWC, doing = _start(world, world.prompts[chosen], seed)
            latent = latent_action(world, key)
            if latent is not None:
                begun = time.perf_counter()
                frame_HWC, doing = world.step(latent), world.buttons[latent].caption(latent)
                screen.took(time.perf_counter() - begun)


def latent_action(world: WorldModel, key: bytes) -> int | None:
    """The latent action that a key presses now, or None."""
    if key in EFFECT_KEYS:
        return cast(int, world.steer(EFFECTIVE_ACTIONS.index(EFFECT_KEYS[key])))
    latent = LATENT_KEYS.find(key)
    return latent if 0 <= latent < world.num_actions else None


class _Screen:
    """The screen: the frame, a status line, the buttons and the keys."""

    def __init__(self, world: WorldModel):
        self._seconds = deque(maxlen=20)  # taken by the last frames
        names = [
            f"{latent + 1} {button.action.replace('_', ' ')} {button.confidence:.0%}"
            for latent, button in enumerate(world.buttons[: len(LATENT_KEYS)])
        ]
        rows = [names[start : start + BUTTONS_A_LINE] for start in range(0, len(names), BUTTONS_A_LINE)]
        width = FRAME_SHAPE[1] // BUTTONS_A_LINE
        self._legend = ["".join(f"{name:{width}}" for name in row) for row in rows]
        self._legend += [line.format(last=len(names)) for line in HELP]
        self._size = (FRAME_SHAPE[1], FRAME_SHAPE[0] // 2 + 1 + len(self._legend))

    def took(self, seconds: float) -> None:
        """Records the time that a frame took to dream."""
        self._seconds.append(seconds)

    def lacks_room(self) -> str:
        """Message that the terminal is too small, or an empty string."""
        (columns, lines), found = self._size, os.get_terminal_size(sys.stdout.fileno())
        if found.columns >= columns and found.lines >= lines:
            return ""
        return (
            f"the terminal has {found.columns} columns and {found.lines} lines, "
            f"and the world needs {columns} and {lines}: enlarge it, or make its font smaller"
        )

    def show(self, frame_HWC: np.ndarray, doing: str) -> None:
        """Redraws the screen."""
        text = self.lacks_room()
        if not text:
            speed = f"{len(self._seconds) / sum(self._seconds):5.1f} frames/s" if self._seconds else "  press a key"
            text = NEW_LINE.join([half_blocks(frame_HWC), f"{speed}   {doing}"[: self._size[0]], *self._legend])
        sys.stdout.write(f"\x1b[H{text}\x1b[K\x1b[J")
        sys.stdout.flush()


def _start(world: WorldModel, prompt: Prompt, seed: int) -> tuple[np.ndarray, str]:
    """Starts a dream; returns its first frame and the source of its prompt."""
    return world.reset(prompt.frames_THWC, actions=prompt.actions, seed=seed), prompt.source


def _last_key(terminal: int) -> bytes:
    """Waits for keys and returns the last, or the first that quits. A closed terminal also quits."""
    typed = os.read(terminal, 1024)
    keys = re.findall(rb"\x1b\[[A-D]|.", typed.replace(b"\x1bO", b"\x1b["), re.DOTALL)
    return next((key for key in keys if key in QUIT), keys[-1] if keys else QUIT[0])


@contextmanager
def _raw_terminal(terminal: int) -> Iterator[None]:
    """Raw mode without echo, on the alternate screen; the terminal is restored on exit, even after SIGTERM."""

    def stop(signal_number, frame):
        raise SystemExit(128 + signal_number)

    before, on_term = termios.tcgetattr(terminal), signal.signal(signal.SIGTERM, stop)
    raw = termios.tcgetattr(terminal)
    raw[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)  # Ctrl-C is read as a key, and Ctrl-Z does not suspend
    try:
        termios.tcsetattr(terminal, termios.TCSANOW, raw)
        sys.stdout.write(ENTER)
        yield
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        signal.signal(signal.SIGTERM, on_term)

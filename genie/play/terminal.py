"""`genie play --terminal`: plays a world in a text terminal, which also works over SSH.

A character cell shows two pixels: the upper as a half block, the lower as its background colour.
"""

import math
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

from genie.world.controls import STILL_SIGN, Button, key_chords
from genie.world.half_blocks import NEW_LINE, NUM_COLUMNS, NUM_LINES, half_blocks
from genie.world.prompts import Prompt
from genie.world.world_model import WorldModel

CHORDS = {  # of the keys whose names are not letters; a terminal sees no two keys at once, so diagonals have their own
    b"\x1b[D": ("left",), b"\x1b[C": ("right",), b"\x1b[A": ("up",), b"\x1b[B": ("down",), b" ": (),
    b"q": ("left", "up"), b"e": ("right", "up"), b"z": ("left", "down"), b"c": ("right", "down"),
}  # fmt: skip
SHOWN_KEYS = {b"\x1b[D": "←", b"\x1b[C": "→", b"\x1b[A": "↑", b"\x1b[B": "↓", b" ": "space"}
LATENT_KEYS = b"123456789"
RESET, NEXT, QUIT = b"r", b"n", (b"x", b"\x03", b"\x04")  # Ctrl-C and Ctrl-D
COMMANDS = ("r again", "n next start", "x quit")
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
    pressed = pressing_keys(world).get(key)
    if pressed is not None:
        return cast(int, world.steer(pressed)) if world.action_names else pressed
    latent = LATENT_KEYS.find(key)
    return latent if 0 <= latent < world.num_actions else None


def pressing_keys(world: WorldModel) -> dict[bytes, int]:
    """The keys, besides numbers, that do something in this world: index of the effective action that each asks for, or
    of the latent action that it presses if true actions are unknown."""
    chords = key_chords(world.action_names, world.buttons)
    letters = {chr(letter).encode(): (chr(letter),) for letter in range(ord("a"), ord("z") + 1)}
    keys = {key: chords.get(frozenset(chord)) for key, chord in (letters | CHORDS).items()}
    return {key: pressed for key, pressed in keys.items() if pressed is not None}


def help_lines(world: WorldModel, width: int) -> list[str]:
    """The keys that do something in this world, in lines of at most `width` characters."""
    keys = pressing_keys(world)
    parts = [f"1-{min(len(LATENT_KEYS), world.num_actions)} buttons"]
    for key in sorted(keys, key=[*CHORDS, *keys].index):
        does = world.action_names[keys[key]].replace("_", " ") if world.action_names else f"as {keys[key] + 1}"
        parts.append(f"{SHOWN_KEYS.get(key, key.decode())} {does}")
    lines = [""]
    for part in (*parts, *COMMANDS):
        longer = f"{lines[-1]}   {part}".lstrip()
        lines[-1:] = [longer] if len(longer) <= width else [lines[-1], part]
    return lines


class _Screen:
    """The screen: the frame, a status line, the buttons and the keys."""

    def __init__(self, world: WorldModel):
        self._seconds = deque(maxlen=20)  # taken by the last frames
        names = [_legend(latent, button) for latent, button in enumerate(world.buttons[: len(LATENT_KEYS)])]
        if not any(button.title for button in world.buttons):
            names = []
        rows = [names[start : start + BUTTONS_A_LINE] for start in range(0, len(names), BUTTONS_A_LINE)]
        width = NUM_COLUMNS // BUTTONS_A_LINE
        self._legend = ["".join(f"{name:{width}}" for name in row) for row in rows]
        self._legend += help_lines(world, NUM_COLUMNS)
        self._size = (NUM_COLUMNS, NUM_LINES + 1 + len(self._legend))

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


def _legend(latent: int, button: Button) -> str:
    """A button's key, and what it does: its name, or the arrow and length of its mean motion."""
    if button.motion is None:
        return f"{latent + 1} {button.title}".rstrip()
    length = "" if button.sign == STILL_SIGN else f" {math.hypot(*button.motion):.1f} px"
    return f"{latent + 1} {button.sign}{length}"


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

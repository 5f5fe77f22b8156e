"""Buttons: what each latent action does, for a player.

They are counted or measured on validation data, and nothing is trained on them. Where the true actions are known, a
button stands for one of them; elsewhere it is described by how it moves what moves. `buttons.json` and `actions.json`,
the names of the true actions, are stored with a world's models.

Axes: `A` latent actions, `E` effective true actions.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genie.core.files import replacing

BUTTONS, ACTIONS = "buttons.json", "actions.json"
COMPASS = ("right", "down-right", "down", "down-left", "left", "up-left", "up", "up-right")
COMPASS_SIGNS, STILL_SIGN = "→↘↓↙←↖↑↗", "·"
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # of the arrow keys, x and y
RESTING = ("stay", "noop")  # names of the effective action that does nothing
COMMAND_KEYS = "cenqrxz"  # letters that never press an action: a terminal's diagonals and the players' commands
STILL = 0.25  # pixels; a shorter mean motion has no direction


class ButtonsError(ValueError):
    """The buttons in a folder are missing or damaged; the message names the file and the fix."""


@dataclass(frozen=True)
class Button:
    """A latent action as a player sees it.

    Attributes:
        names: names of the effective actions; empty if they are unknown.
        shares: probability of each of them given that this latent action was inferred, under a uniform prior over them:
            E numbers that sum to one, or are all 0 if it was never inferred.
        motion: mean displacement of the agent under this latent action, in pixels to the right and downwards; None if
            it was not measured.
    """

    names: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()
    motion: tuple[float, float] | None = None

    @property
    def effect(self) -> int:
        """Index in `names` of the effective action that it stands for; they must be known."""
        return self.shares.index(max(self.shares))

    @property
    def action(self) -> str:
        """Name of what it does: the effective action that it stands for, or else the direction of its motion."""
        if self.names:
            return self.names[self.effect]
        if self.motion is None:
            return ""
        if math.hypot(*self.motion) < STILL:
            return "still"
        return COMPASS[self._octant(self.motion)]

    @property
    def sign(self) -> str:
        """Unicode arrow of its motion, a dot if it is still, or nothing if its motion was not measured."""
        if self.motion is None:
            return ""
        return STILL_SIGN if math.hypot(*self.motion) < STILL else COMPASS_SIGNS[self._octant(self.motion)]

    @staticmethod
    def _octant(motion: tuple[float, float]) -> int:
        """Index in `COMPASS` of the nearest direction."""
        return round(math.atan2(motion[1], motion[0]) / (math.pi / 4)) % len(COMPASS)

    @property
    def confidence(self) -> float | None:
        """Probability of that effective action, in [0, 1]; None if effective actions are unknown."""
        return max(self.shares) if self.names else None

    @property
    def title(self) -> str:
        """What it does, in a few words: `jump left 83%`, or `up-right 2.1 px`, or nothing if nothing is known."""
        if self.confidence is not None:
            return f"{self.action.replace('_', ' ')} {self.confidence:.0%}"
        if self.motion is None or self.action == "still":
            return self.action
        return f"{self.action} {math.hypot(*self.motion):.1f} px"

    def caption(self, latent_action: int) -> str:
        """Short caption for a picture."""
        return f"{latent_action}: {self.title}" if self.title else str(latent_action)


def arrows_of(names: Sequence[str]) -> tuple[Button, ...]:
    """Buttons of arrows: each stands for its effective action with probability 1."""
    return tuple(Button(tuple(names), tuple(row)) for row in np.eye(len(names)).tolist())


def key_chords(names: Sequence[str], buttons: Sequence[Button]) -> dict[frozenset[str], int]:
    """What keys press that are held together: the chord, and what it stands for.

    With names of effective actions, each word of a name is a key: a direction is an arrow key; `jump` is the up key,
    unless another action moves up; any other word is a letter of it. Without names, an arrow key presses the button
    whose mean motion points most that way.

    Args:
        names: names of the effective actions that arrows stand for; empty in a world without arrows.
        buttons: the latent actions.

    Returns:
        By the names of keys, `left`, `right`, `up`, `down` or a letter: index in `names`, or in `buttons` if there are
        no names. The empty chord, if it is there, is what does nothing.
    """
    return _chords_of_names(names) if names else _chords_of_motions(buttons)


def _chords_of_names(names: Sequence[str]) -> dict[frozenset[str], int]:
    # Directions are also found in names without separators, such as Atari's UPRIGHTFIRE.
    split = (re.split("(up|down|left|right)|[^a-z0-9]+", name.lower()) for name in names)
    words = [[word for word in parts if word] for parts in split]
    keys = {direction: direction for direction in DIRECTIONS}
    if not any("up" in parts and keys.keys() >= set(parts) for parts in words):
        keys["jump"] = "up"
    for word in (word for parts in words for word in parts if word not in RESTING):
        letters = (letter for letter in word if letter.isalpha() and letter not in (*COMMAND_KEYS, *keys.values()))
        if word not in keys and (letter := next(letters, None)):
            keys[word] = letter
    chords: dict[frozenset[str], int] = {}
    for effect, parts in enumerate(words):
        pressed = [word for word in parts if word not in RESTING]
        if all(word in keys for word in pressed):
            chords.setdefault(frozenset(keys[word] for word in pressed), effect)
    return chords


def _chords_of_motions(buttons: Sequence[Button]) -> dict[frozenset[str], int]:
    moving = {latent: button.motion for latent, button in enumerate(buttons) if button.motion is not None}
    still = {latent: math.hypot(*motion) for latent, motion in moving.items() if math.hypot(*motion) < STILL}
    chords = {}
    if still:
        chords[frozenset()] = min(still, key=lambda latent: still[latent])
    for key, (x, y) in DIRECTIONS.items():
        # How far it goes that way less how far it strays, which is negative if they are more than 45 degrees apart.
        leads = {
            latent: dx * x + dy * y - abs(dx * y - dy * x) for latent, (dx, dy) in moving.items() if latent not in still
        }
        best = max(leads, key=lambda latent: leads[latent], default=None)
        if best is not None and leads[best] >= 0:
            chords[frozenset((key,))] = best
    return chords


def name_buttons(met_AE: np.ndarray, names: Sequence[str]) -> tuple[Button, ...]:
    """Names latent actions by their co-occurrence with effective actions.

    The names use the probability of a latent action given the effective one, not the reverse. Otherwise most latent
    actions would be named after the collecting policy's most frequent action, whatever they do.

    Args:
        met_AE: co-occurrence counts. A latent action without any is named after the first effective action, with
            confidence 0.
        names: names of the effective actions.
    """
    likelihood_AE = met_AE / np.maximum(met_AE.sum(axis=0, keepdims=True), 1)
    share_AE = likelihood_AE / np.maximum(likelihood_AE.sum(axis=1, keepdims=True), 1e-12)
    return tuple(Button(tuple(names), tuple(share_E)) for share_E in share_AE.round(4).tolist())


def write_buttons(folder: str | Path, buttons: Sequence[Button]) -> None:
    """Writes `buttons.json` and `actions.json` into a folder, which is created if necessary."""
    for name, content in ((BUTTONS, buttons_to_json(buttons)), (ACTIONS, list(buttons[0].names))):
        with replacing(Path(folder) / name) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def read_buttons(folder: str | Path) -> tuple[Button, ...]:
    """Reads the buttons written by `write_buttons`.

    Raises:
        ButtonsError: a file is missing or damaged.
    """
    path = Path(folder) / ACTIONS
    try:
        names = json.loads(path.read_text())
        path = Path(folder) / BUTTONS
        return buttons_from_json(json.loads(path.read_text()), names)
    except FileNotFoundError:
        raise ButtonsError(f"{path}: no such file; run `dvc repro`") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ButtonsError(f"{path}: no buttons, or damaged ones; remove it and run `dvc repro`") from None


def buttons_to_json(buttons: Sequence[Button]) -> list[dict]:
    """Converts buttons to JSON; each entry also says in a word what the button does, for human readers."""
    return [{"action": button.action, **_known(button)} for button in buttons]


def _known(button: Button) -> dict:
    if button.names:
        return {"shares": list(button.shares)}
    return {"motion": None if button.motion is None else list(button.motion)}


def buttons_from_json(content: list[dict], names: Sequence[str]) -> tuple[Button, ...]:
    """Converts the output of `buttons_to_json` back to buttons.

    Args:
        content: the output.
        names: names of the effective actions; empty if they are unknown.

    Raises:
        ValueError, TypeError, KeyError: the content is invalid.
    """
    if names:
        buttons = tuple(Button(tuple(names), tuple(map(float, entry["shares"]))) for entry in content)
    else:
        motions = [entry["motion"] for entry in content]
        buttons = tuple(Button(motion=motion and (float(motion[0]), float(motion[1]))) for motion in motions)
    if not buttons or any(len(button.shares) != len(names) for button in buttons):
        raise ValueError("a button needs a share of each true action")
    return buttons

"""What each latent action is called: the effective true action that it stands for, and how sure that is.

Learnt from counts on validation data; nothing is trained on it. `buttons.json` lies with the LAM, and goes with the
latent actions to the dynamics, so that a world knows its buttons.

Axes: `A` latent actions, `E` effective true actions, as in `EFFECTIVE_ACTIONS`.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from genie.data.simulator import EFFECTIVE_ACTIONS

BUTTONS = "buttons.json"


class ButtonsError(ValueError):
    """A folder holds no buttons, or damaged ones; the message names it and the fix."""


@dataclass(frozen=True)
class Button:
    """A latent action.

    Attributes:
        action: the effective true action that it stands for.
        confidence: how probable that is, in [0, 1], were all true actions equally frequent.
    """

    action: str
    confidence: float

    @property
    def effect(self) -> int:
        """The index of its action in `EFFECTIVE_ACTIONS`."""
        return EFFECTIVE_ACTIONS.index(self.action)

    def caption(self, latent_action: int) -> str:
        """A few words for a picture."""
        return f"{latent_action}: {self.action.replace('_', ' ')} {self.confidence:.0%}"


TRUE_BUTTONS = tuple(Button(action, 1.0) for action in EFFECTIVE_ACTIONS)  # of a world that is told the true actions


def name_buttons(counts_AE: np.ndarray) -> tuple[Button, ...]:
    """Names latent actions by how often each meets each true one.

    By how probable a latent action is given the true one, and not the other way round: else most would be called
    after the action that the collecting policy likes best, whatever they do.

    Args:
        counts_AE: as `action_table` gives them. A latent action never met stands, without confidence, for the first.
    """
    likelihood_AE = counts_AE / np.maximum(counts_AE.sum(axis=0, keepdims=True), 1)
    share_AE = likelihood_AE / np.maximum(likelihood_AE.sum(axis=1, keepdims=True), 1e-12)
    return tuple(Button(EFFECTIVE_ACTIONS[share_E.argmax()], round(float(share_E.max()), 4)) for share_E in share_AE)


def write_buttons(folder: str | Path, buttons: Sequence[Button]) -> None:
    """Writes `buttons.json`."""
    (Path(folder) / BUTTONS).write_text(json.dumps([asdict(button) for button in buttons], indent=2) + "\n")


def read_buttons(folder: str | Path) -> tuple[Button, ...]:
    """Reads what `write_buttons` wrote.

    Raises:
        ButtonsError: it is missing or damaged.
    """
    path = Path(folder) / BUTTONS
    try:
        buttons = tuple(Button(**entry) for entry in json.loads(path.read_text()))
        assert all(button.action in EFFECTIVE_ACTIONS for button in buttons)
    except FileNotFoundError:
        raise ButtonsError(f"{path}: no such file; run `dvc repro`") from None
    except (OSError, ValueError, TypeError, AssertionError):
        raise ButtonsError(f"{path}: not a list of buttons; remove its folder and run `dvc repro`") from None
    return buttons

"""What each latent action is called: the effective true action that it stands for, and how sure that is.

Learnt from counts on validation data; nothing is trained on it. `buttons.json` lies with the LAM, and goes with the
latent actions to the dynamics, so that a world knows its buttons.

Axes: `A` latent actions, `E` effective true actions, as in `EFFECTIVE_ACTIONS`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
        shares: how probable it is that each of `EFFECTIVE_ACTIONS` was pressed where this latent action was inferred,
            were all of them equally frequent: E numbers that add to one, or are all 0 where it was never inferred.
    """

    shares: tuple[float, ...]

    @property
    def effect(self) -> int:
        """The index in `EFFECTIVE_ACTIONS` of the action that it stands for."""
        return self.shares.index(max(self.shares))

    @property
    def action(self) -> str:
        """The effective true action that it stands for."""
        return EFFECTIVE_ACTIONS[self.effect]

    @property
    def confidence(self) -> float:
        """How probable that is, in [0, 1]."""
        return max(self.shares)

    def caption(self, latent_action: int) -> str:
        """A few words for a picture."""
        return f"{latent_action}: {self.action.replace('_', ' ')} {self.confidence:.0%}"


# Of a world that is told the true actions.
TRUE_BUTTONS = tuple(Button(tuple(row)) for row in np.eye(len(EFFECTIVE_ACTIONS)).tolist())


def button_for(buttons: Sequence[Button], effect: int) -> int:
    """The latent action to press for an effective action: the one that most probably stands for it."""
    return max(range(len(buttons)), key=lambda latent: buttons[latent].shares[effect])


def name_buttons(counts_AE: np.ndarray) -> tuple[Button, ...]:
    """Names latent actions by how often each meets each true one.

    By how probable a latent action is given the true one, and not the other way round: else most would be called
    after the action that the collecting policy likes best, whatever they do.

    Args:
        counts_AE: as `action_table` gives them. A latent action never met stands, without confidence, for the first.
    """
    likelihood_AE = counts_AE / np.maximum(counts_AE.sum(axis=0, keepdims=True), 1)
    share_AE = likelihood_AE / np.maximum(likelihood_AE.sum(axis=1, keepdims=True), 1e-12)
    return tuple(Button(tuple(share_E)) for share_E in share_AE.round(4).tolist())


def write_buttons(folder: str | Path, buttons: Sequence[Button]) -> None:
    """Writes `buttons.json`: of each latent action its name, for those who read, and its shares."""
    entries = [{"action": button.action, "shares": list(button.shares)} for button in buttons]
    (Path(folder) / BUTTONS).write_text(json.dumps(entries, indent=2) + "\n")


def read_buttons(folder: str | Path) -> tuple[Button, ...]:
    """Reads what `write_buttons` wrote.

    Raises:
        ButtonsError: it is missing or damaged.
    """
    path = Path(folder) / BUTTONS
    try:
        buttons = tuple(Button(tuple(map(float, entry["shares"]))) for entry in json.loads(path.read_text()))
        assert buttons
        assert all(len(button.shares) == len(EFFECTIVE_ACTIONS) for button in buttons)
    except FileNotFoundError:
        raise ButtonsError(f"{path}: no such file; run `dvc repro`") from None
    except (OSError, ValueError, TypeError, KeyError, AssertionError):
        raise ButtonsError(f"{path}: not a list of buttons; remove its folder and run `dvc repro`") from None
    return buttons

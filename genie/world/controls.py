"""Buttons: the effective action that each latent action stands for.

They are counted on validation data, and nothing is trained on them. `buttons.json` is stored with a world's models.

Axes: `A` latent actions, `E` effective actions, in the order of `EFFECTIVE_ACTIONS`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genie.core.actions import EFFECTIVE_ACTIONS
from genie.core.files import replacing

BUTTONS = "buttons.json"


class ButtonsError(ValueError):
    """The buttons in a folder are missing or damaged; the message names the file and the fix."""


@dataclass(frozen=True)
class Button:
    """A latent action as a player sees it.

    Attributes:
        shares: probability of each of `EFFECTIVE_ACTIONS` given that this latent action was inferred, under a uniform
            prior over them: E numbers that sum to one, or are all 0 if it was never inferred.
    """

    shares: tuple[float, ...]

    @property
    def effect(self) -> int:
        """Index in `EFFECTIVE_ACTIONS` of the effective action that it stands for."""
        return self.shares.index(max(self.shares))

    @property
    def action(self) -> str:
        """Name of the effective action that it stands for."""
        return EFFECTIVE_ACTIONS[self.effect]

    @property
    def confidence(self) -> float:
        """Probability of that effective action, in [0, 1]."""
        return max(self.shares)

    def caption(self, latent_action: int) -> str:
        """Short caption for a picture."""
        return f"{latent_action}: {self.action.replace('_', ' ')} {self.confidence:.0%}"


# Buttons of arrows: each stands for its effective action with probability 1.
ARROWS = tuple(Button(tuple(row)) for row in np.eye(len(EFFECTIVE_ACTIONS)).tolist())


def name_buttons(met_AE: np.ndarray) -> tuple[Button, ...]:
    """Names latent actions by their co-occurrence with effective actions.

    The names use the probability of a latent action given the effective one, not the reverse. Otherwise most latent
    actions would be named after the collecting policy's most frequent action, whatever they do.

    Args:
        met_AE: co-occurrence counts. A latent action without any is named after the first effective action, with
            confidence 0.
    """
    likelihood_AE = met_AE / np.maximum(met_AE.sum(axis=0, keepdims=True), 1)
    share_AE = likelihood_AE / np.maximum(likelihood_AE.sum(axis=1, keepdims=True), 1e-12)
    return tuple(Button(tuple(share_E)) for share_E in share_AE.round(4).tolist())


def write_buttons(folder: str | Path, buttons: Sequence[Button]) -> None:
    """Writes `buttons.json` into a folder, which is created if necessary."""
    with replacing(Path(folder) / BUTTONS) as temporary:
        temporary.write_text(json.dumps(buttons_to_json(buttons), indent=2) + "\n")


def read_buttons(folder: str | Path) -> tuple[Button, ...]:
    """Reads the buttons written by `write_buttons`.

    Raises:
        ButtonsError: the file is missing or damaged.
    """
    path = Path(folder) / BUTTONS
    try:
        return buttons_from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ButtonsError(f"{path}: no such file; run `dvc repro`") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ButtonsError(f"{path}: no buttons, or damaged ones; remove it and run `dvc repro`") from None


def buttons_to_json(buttons: Sequence[Button]) -> list[dict]:
    """Converts buttons to JSON; each entry also has the button's name, for human readers."""
    return [{"action": button.action, "shares": list(button.shares)} for button in buttons]


def buttons_from_json(content: list[dict]) -> tuple[Button, ...]:
    """Converts the output of `buttons_to_json` back to buttons.

    Raises:
        ValueError, TypeError, KeyError: the content is invalid.
    """
    buttons = tuple(Button(tuple(map(float, entry["shares"]))) for entry in content)
    if not buttons or any(len(button.shares) != len(EFFECTIVE_ACTIONS) for button in buttons):
        raise ValueError("a button needs a share of each true action")
    return buttons

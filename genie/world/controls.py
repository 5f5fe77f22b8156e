"""Buttons: what pressing a latent action means, which is the true action that it stands for.

Counted on validation data; nothing is trained on it. `buttons.json` lies among a world's models.

Axes: `A` latent actions, `E` effective true actions, as in `EFFECTIVE_ACTIONS`, `N` frames of a split.
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


# An arrow stands for its effective action, and for no other.
ARROWS = tuple(Button(tuple(row)) for row in np.eye(len(EFFECTIVE_ACTIONS)).tolist())


def name_buttons(met_AE: np.ndarray) -> tuple[Button, ...]:
    """Names latent actions by how often each meets each true one.

    By how probable a latent action is given the true one, and not the other way round: else most would be called
    after the action that the collecting policy likes best, whatever they do.

    Args:
        met_AE: counts. A latent action never met stands, without confidence, for the first.
    """
    likelihood_AE = met_AE / np.maximum(met_AE.sum(axis=0, keepdims=True), 1)
    share_AE = likelihood_AE / np.maximum(likelihood_AE.sum(axis=1, keepdims=True), 1e-12)
    return tuple(Button(tuple(share_E)) for share_E in share_AE.round(4).tolist())


def write_buttons(folder: str | Path, buttons: Sequence[Button]) -> None:
    """Writes `buttons.json` into a folder; made if need be."""
    with replacing(Path(folder) / BUTTONS) as temporary:
        temporary.write_text(json.dumps(buttons_to_json(buttons), indent=2) + "\n")


def read_buttons(folder: str | Path) -> tuple[Button, ...]:
    """Reads what `write_buttons` wrote.

    Raises:
        ButtonsError: it is missing or damaged.
    """
    path = Path(folder) / BUTTONS
    try:
        return buttons_from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ButtonsError(f"{path}: no such file; run `dvc repro`") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ButtonsError(f"{path}: no buttons, or damaged ones; remove it and run `dvc repro`") from None


def buttons_to_json(buttons: Sequence[Button]) -> list[dict]:
    """As they are kept in a file: of each also its name, for those who read it."""
    return [{"action": button.action, "shares": list(button.shares)} for button in buttons]


def buttons_from_json(content: list[dict]) -> tuple[Button, ...]:
    """What `buttons_to_json` gave.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    buttons = tuple(Button(tuple(map(float, entry["shares"]))) for entry in content)
    if not buttons or any(len(button.shares) != len(EFFECTIVE_ACTIONS) for button in buttons):
        raise ValueError("a button needs a share of each true action")
    return buttons

"""What pressing means: which true action each latent action stands for, and which latent action an arrow presses.

Counted on validation data; nothing is trained on it. `controls.json` lies among a world's models.

Axes: `A` latent actions, `E` effective true actions, as in `EFFECTIVE_ACTIONS`, `V = A + 1` what may have been pressed
before: a latent action, or one that is not known, which is index A. `N` frames of a split, `B` worlds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genie.data.episodes import NO_ACTION, EpisodeStore
from genie.data.motion import is_moving
from genie.data.simulator import EFFECTIVE_ACTIONS, effective_action

CONTROLS = "controls.json"
TELLING = 4  # how much more it counts that a latent action tells an arrow from others than that it is likely
BACK_OFF = 20.0  # counts that are added to those after one latent action, in the proportions found after any


class ControlsError(ValueError):
    """A folder holds no controls, or damaged ones; the message names it and the fix."""


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


@dataclass(frozen=True)
class Controls:
    """The controls of a world.

    Attributes:
        buttons: A of them.
        steering: for each effective action V numbers: the latent action that it presses after each.
    """

    buttons: tuple[Button, ...]
    steering: tuple[tuple[int, ...], ...]

    def steer(self, effects_B: np.ndarray, before_B: np.ndarray) -> np.ndarray:
        """The latent actions `(B,)` that effective actions press, after others, which are A where unknown."""
        return np.array(self.steering)[effects_B, before_B]

    def steer_in_turn(self, effects: Sequence[int]) -> np.ndarray:
        """The latent actions `(S,)` int64 that S effective actions press one after another, nothing known before."""
        latents = [len(self.buttons)]
        for effect in effects:
            latents.append(self.steering[effect][latents[-1]])
        return np.array(latents[1:], np.int64)

    def to_json(self) -> dict:
        """As it is kept in a file; of each latent action also its name, for those who read it."""
        return {
            "buttons": [{"action": button.action, "shares": list(button.shares)} for button in self.buttons],
            "steering": {
                action: " ".join(map(str, row)) for action, row in zip(EFFECTIVE_ACTIONS, self.steering, strict=True)
            },
        }

    @classmethod
    def from_json(cls, content: dict) -> "Controls":
        """What `to_json` gave.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        buttons = tuple(Button(tuple(map(float, entry["shares"]))) for entry in content["buttons"])
        steering = tuple(tuple(map(int, str.split(content["steering"][action]))) for action in EFFECTIVE_ACTIONS)
        num_actions = len(buttons)
        if not buttons or any(len(button.shares) != len(EFFECTIVE_ACTIONS) for button in buttons):
            raise ValueError("a button needs a share of each true action")
        if any(len(row) != num_actions + 1 or not 0 <= min(row) <= max(row) < num_actions for row in steering):
            raise ValueError("each true action needs a latent one after any")
        return cls(buttons, steering)


def learn_controls(store: EpisodeStore, latent_actions: np.ndarray, num_actions: int) -> Controls:
    """Names latent actions, and finds which to press for a true one, by how often they meet.

    Args:
        store: a split of N frames, with the true actions.
        latent_actions: `(N,)` those inferred from it, `NO_ACTION` at an episode's last frame.
        num_actions: A.
    """
    met_AE = np.zeros((num_actions, len(EFFECTIVE_ACTIONS)), int)
    met_EVA = np.zeros((len(EFFECTIVE_ACTIONS), num_actions + 1, num_actions), int)
    actions = store.actions()
    for episode in store.episode_slices():
        frames_THWC = store.read(episode.start, episode.stop)
        taken = slice(episode.start, episode.stop - 1)
        assert NO_ACTION not in latent_actions[taken], "latent actions of other episodes"
        effects, latents = effective_action(actions[taken]), latent_actions[taken].astype(int)
        np.add.at(met_AE, (latents, effects), 1)
        # An arrow is pressed for something to happen: where nothing did, at a wall, tells how often the agent runs into
        # walls. Were that counted, "right" after standing would be standing for ever.
        counted = is_moving(frames_THWC[:-1], frames_THWC[1:]) | (effects == EFFECTIVE_ACTIONS.index("stay"))
        before = np.r_[num_actions, latents][: len(latents)]
        np.add.at(met_EVA, tuple(part[counted] for part in (effects, before, latents)), 1)
    return Controls(name_buttons(met_AE), _steering(met_EVA))


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


def write_controls(folder: str | Path, controls: Controls) -> None:
    """Writes `controls.json` into a folder; made if need be."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / CONTROLS).write_text(json.dumps(controls.to_json(), indent=2) + "\n")


def read_controls(folder: str | Path) -> Controls:
    """Reads what `write_controls` wrote.

    Raises:
        ControlsError: it is missing or damaged.
    """
    path = Path(folder) / CONTROLS
    try:
        return Controls.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ControlsError(f"{path}: no such file; run `dvc repro`") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ControlsError(f"{path}: no controls, or damaged ones; remove it and run `dvc repro`") from None


def _steering(met_EVA: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """For each true action and what was pressed before, the latent action that is likely and tells it from others.

    Likely alone, an arrow would press what any other would, since most pasts go on in one way whatever is pressed;
    telling alone, what hardly ever follows. So their product is greatest: `P(latent | effect, past)` times
    `P(effect | latent, past) ** TELLING`, were all effects equally frequent.
    """
    uniform = np.full(met_EVA.shape[-1], 1 / met_EVA.shape[-1])
    likely_EVA = _proportions(met_EVA.sum(1, keepdims=True), uniform).repeat(met_EVA.shape[1], axis=1)
    likely_EVA[:, :-1] = _proportions(met_EVA[:, :-1], likely_EVA[:, :-1])
    telling_EVA = likely_EVA / likely_EVA.sum(axis=0, keepdims=True)
    return tuple(map(tuple, (likely_EVA * telling_EVA**TELLING).argmax(axis=-1).tolist()))


def _proportions(counts: np.ndarray, without: np.ndarray) -> np.ndarray:
    """Of counts `(..., A)` the shares, drawn to those without knowing the past where counts are few."""
    return (counts + BACK_OFF * without) / (counts.sum(axis=-1, keepdims=True) + BACK_OFF)

"""True actions, where the source knows them: their names, and what a simulator's actions do.

Index contract, relied on everywhere: `actions[t]`, latent or true, takes frame `t` to frame `t + 1`; an episode's last
frame has `NO_ACTION`.

A game of Procgen takes 15 actions, many of which do the same. Those that never lead to different frames are one
*effective action*; only effective actions are measured and steered.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

NUM_ACTIONS = 15  # of a Procgen game
NO_ACTION = 255  # marks an episode's last frame

# Games in which up is a jump and down does nothing, and in which both do nothing. In CoinRun "down" drops through
# crates, which is too rare to be an action of its own.
_JUMPING = ("climber", "coinrun", "jumper", "ninja")
_SIDEWAYS = ("fruitbot", "plunder")
# Names of what actions from 9 on do.
_FIRE = {
    "bossfight": ("fire",), "caveflyer": ("fire",), "dodgeball": ("fire",), "fruitbot": ("fire",), "plunder": ("fire",),
    "starpilot": ("fire", "fire_back"), "ninja": ("throw", "throw_high", "throw_up", "throw_low"),
}  # fmt: skip
# Unnamed actions fire in these games, and do nothing in the others.
_ALWAYS_FIRE = ("ninja", "starpilot")
# An agent that moves by whole cells goes sideways if it is asked to go two ways at once.
_GRID_STEPS = ("leaper", "maze", "miner")


@dataclass(frozen=True)
class GameActions:
    """What the actions of a Procgen game do.

    Attributes:
        names: name of each effective action.
        numbers: the simulator's action, 0 to 14, that shows each effective action.
        effects: index of the effective action of each of the 15 actions.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    effects: tuple[int, ...]

    def effective(self, actions: np.ndarray) -> np.ndarray:
        """Maps simulator actions 0..14 to indices of `names`."""
        return np.array(self.effects)[actions]


@cache
def game_actions(env_name: str) -> GameActions:
    """The actions of a Procgen game.

    An action below 9 moves: it is `3 * (dx + 1) + (dy + 1)`. Effective actions are in the order stay, left, right, each
    without and with up and down, and then those that fire.
    """
    fires = _FIRE.get(env_name, ())
    names = [_move(env_name, action) for action in range(9)]
    for special in range(NUM_ACTIONS - 9):
        default = fires[0] if env_name in _ALWAYS_FIRE else "stay"
        names.append(fires[special] if special < len(fires) else default)
    moves = [_move(env_name, 3 * (dx + 1) + dy + 1) for dy in (0, 1, -1) for dx in (0, -1, 1)]
    effective = tuple(dict.fromkeys([*moves, *fires]))
    numbers = tuple(_number(names, name) for name in effective)
    return GameActions(effective, numbers, tuple(effective.index(name) for name in names))


def _move(env_name: str, action: int) -> str:
    dx, dy = action // 3 - 1, action % 3 - 1
    if env_name in _GRID_STEPS and dx:
        dy = 0
    if env_name in _SIDEWAYS or (env_name in _JUMPING and dy < 0):
        dy = 0
    along, across = ("", "right", "left")[dx], ("", "jump" if env_name in _JUMPING else "up", "down")[dy]
    return "_".join(part for part in (across, along) if part) or "stay"


def _number(names: list[str], name: str) -> int:
    """The action that shows an effective action: of those with the same effect, the one without up and down."""
    return min(
        (number for number, found in enumerate(names) if found == name),
        key=lambda number: number < 9 and number % 3 != 1,
    )

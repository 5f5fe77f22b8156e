"""The simulator's actions and their effects in CoinRun.

Index contract, relied on everywhere: `actions[t]`, latent or the simulator's, takes frame `t` to frame `t + 1`; an
episode's last frame has `NO_ACTION`.
"""

import numpy as np

NUM_ACTIONS = 15
EFFECTIVE_ACTIONS = ("stay", "left", "right", "jump", "jump_left", "jump_right")
ACTION_OF_EFFECT = {"stay": 4, "left": 1, "right": 7, "jump": 5, "jump_left": 2, "jump_right": 8}
_EFFECT_OF_ACTION = np.array([1, 1, 4, 0, 0, 3, 2, 2, 5, 0, 0, 0, 0, 0, 0])
NO_ACTION = 255  # marks an episode's last frame


def effective_action(actions: np.ndarray) -> np.ndarray:
    """Maps simulator actions 0..14 to indices of `EFFECTIVE_ACTIONS`, according to CoinRun's physics.

    An action below 9 is `3 * (dx + 1) + (dy + 1)`; down only drops through crates, and 9..14 do nothing.
    """
    return _EFFECT_OF_ACTION[actions]

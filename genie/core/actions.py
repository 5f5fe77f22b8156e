"""The simulator's actions, and what they do in CoinRun.

Index contract, relied on everywhere: `actions[t]`, latent or the simulator's, takes frame `t` to frame `t + 1`, and no
frame follows an episode's last, which has `NO_ACTION`.
"""

import numpy as np

NUM_ACTIONS = 15
EFFECTIVE_ACTIONS = ("stay", "left", "right", "jump", "jump_left", "jump_right")
ACTION_OF_EFFECT = {"stay": 4, "left": 1, "right": 7, "jump": 5, "jump_left": 2, "jump_right": 8}
_EFFECT_OF_ACTION = np.array([1, 1, 4, 0, 0, 3, 2, 2, 5, 0, 0, 0, 0, 0, 0])
NO_ACTION = 255  # after an episode's last frame


def effective_action(actions: np.ndarray) -> np.ndarray:
    """Maps simulator actions 0..14 to indices of `EFFECTIVE_ACTIONS`, as CoinRun's physics does.

    An action below 9 is `3 * (dx + 1) + (dy + 1)`; down only drops through crates, and 9..14 do nothing.
    """
    return _EFFECT_OF_ACTION[actions]

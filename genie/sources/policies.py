"""Policies that play the simulator during recording; none of them uses the frames."""

import numpy as np

from genie.core.actions import NUM_ACTIONS, game_actions
from genie.core.params import CollectParams

FRESH_SHARES = {
    "stay": 0.10,
    "left": 0.20,
    "right": 0.38,
    "jump": 0.06,
    "jump_left": 0.08,
    "jump_right": 0.18,
}


def fresh_action_shares(env_name: str) -> np.ndarray:
    """Probability of each of the simulator's 15 actions when `sticky_right` does not keep the last one.

    CoinRun: only the six effective actions, biased to the right because levels run that way. In the other games any
    action may matter: half of the draws have the same bias, half are uniform.
    """
    shares = np.zeros(NUM_ACTIONS)
    coinrun = game_actions("coinrun")
    for name, number in zip(coinrun.names, coinrun.numbers, strict=True):
        shares[number] = FRESH_SHARES[name]
    return shares if env_name == "coinrun" else shares / 2 + 0.5 / NUM_ACTIONS


class Policy:
    """Draws the next actions of all environments without using their frames.

    `uniform` draws the 15 actions with equal probability. `sticky_right` keeps the last action with probability
    `stickiness` and otherwise draws from `fresh_action_shares`, so that agents advance instead of jittering at the
    start. It prefers actions with a visible effect: it rarely jumps, because in the air an action hardly shows. Even
    so, the agent is in the air in about half of CoinRun's frames.
    """

    def __init__(self, params: CollectParams, seed: int):
        self._rng = np.random.default_rng(seed)
        if params.policy == "uniform":
            self._stickiness, shares = 0.0, np.full(NUM_ACTIONS, 1 / NUM_ACTIONS)
        else:
            self._stickiness, shares = params.stickiness, fresh_action_shares(params.env_name)
        self._thresholds = np.cumsum(shares)[:-1]
        self._actions = self._fresh(params.num_envs)

    def __call__(self) -> np.ndarray:
        """`(num_envs,)` actions 0..14."""
        keep = self._rng.random(len(self._actions)) < self._stickiness
        self._actions = np.where(keep, self._actions, self._fresh(len(self._actions)))
        return self._actions

    def _fresh(self, count: int) -> np.ndarray:
        return np.searchsorted(self._thresholds, self._rng.random(count), side="right")

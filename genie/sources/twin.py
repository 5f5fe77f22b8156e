"""The twin: the real game, played beside the dream from the same state.

Legend: `T` frames, `S = T - 1` transitions, `H W C` pixels, uint8 RGB.
"""

import numpy as np

from genie.core.actions import game_actions
from genie.core.params import CollectParams
from genie.sources.levels import shards_of, simulator_of


class RealGame:
    """One environment that plays levels of the test split's first shard, one life after another.

    Args:
        params: collection parameters of the game that the world was trained on.
        level: seed that determines the levels and the policy's actions.
    """

    def __init__(self, params: CollectParams, level: int):
        self._actions = game_actions(params.env_name)
        alone = params.model_copy(update={"num_envs": 1, "seed": level})
        self._simulator, self._policy = simulator_of(alone, shards_of(alone, "test")[0], num_threads=1)

    @property
    def level_seed(self) -> int:
        """Seed of the current level."""
        return int(self._simulator.level_seeds()[0])

    def begin(self, num_frames: int) -> tuple[np.ndarray, list[int]]:
        """Lets the policy play, and saves the final state for `again`.

        Returns:
            `(T, H, W, C)` consecutive frames up to the current one: `num_frames`, or fewer if a life ended meanwhile;
            and the S effective actions between them, as indices of their names.
        """
        frames, effects = [self._observe()[0]], []
        for _ in range(num_frames - 1):
            actions = self._policy()
            self._simulator.act(actions)
            frame_HWC, is_new = self._observe()
            if is_new:
                frames, effects = [], []
            else:
                effects.append(int(self._actions.effective(actions)[0]))
            frames.append(frame_HWC)
        self._state = self._simulator.save()
        return np.stack(frames), effects

    def again(self) -> None:
        """Restores the state in which `begin` ended."""
        self._simulator.restore(self._state)

    def step(self, effect: int) -> tuple[np.ndarray, bool]:
        """Holds an effective action for one frame.

        Returns:
            The next frame `(H, W, C)`, and whether a new life began before it.
        """
        self._simulator.act(np.array([self._actions.numbers[effect]]))
        return self._observe()

    def close(self) -> None:
        self._simulator.close()

    def _observe(self) -> tuple[np.ndarray, bool]:
        frames_BHWC, is_new = self._simulator.observe()
        return frames_BHWC[0].copy(), bool(is_new[0])

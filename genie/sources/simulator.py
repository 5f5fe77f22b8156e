"""Batched Procgen environments with action repeat."""

import os
from copy import copy

import numpy as np

from genie.sources.engines import open_engine


class Simulator:
    """Steps `num_envs` environments together; each plays one random level after another.

    Args:
        start_level, num_levels: levels are drawn from `start_level <= seed < start_level + num_levels`.
        action_repeat: number of simulator steps for which an action is held.
        num_threads: threads of the simulator; 0 means one per core. Results do not depend on it.

    Raises:
        EngineError: no simulator is installed, or it lacks a system library.
    """

    def __init__(
        self,
        *,
        env_name: str,
        distribution_mode: str,
        backgrounds: bool,
        num_envs: int,
        start_level: int,
        num_levels: int,
        action_repeat: int,
        seed: int,
        num_threads: int,
    ):
        self.num_envs = num_envs
        self._repeat = action_repeat
        self._steps_left = 0  # of the held actions, after the step in progress
        self._options = {
            "env_name": env_name,
            "distribution_mode": distribution_mode,
            "use_backgrounds": backgrounds,
            "start_level": start_level,
            "num_levels": num_levels,
            "rand_seed": seed,
        }
        self._open(num_threads or os.cpu_count() or 1)

    def act(self, actions: np.ndarray) -> None:
        """Starts holding `actions (num_envs,)`; returns at once while the simulator's threads continue."""
        self._actions = actions.astype(np.int32)
        self._engine.act(self._actions)
        self._steps_left = self._repeat - 1

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """Waits until the actions have been held for `action_repeat` steps.

        Returns:
            frames `(num_envs, 64, 64, 3)` uint8, the simulator's own memory, valid until `act`; and
            `(num_envs,)` bool: whether a new life began between the previous frame and this one.
        """
        frames, is_first = self._engine.observe()
        is_new = is_first.copy()
        while self._steps_left:
            self._steps_left -= 1
            self._engine.act(self._actions)
            frames, is_first = self._engine.observe()
            is_new |= is_first
        return frames, is_new

    def level_seeds(self) -> np.ndarray:
        """Current level of each environment, `(num_envs,)` int64; call only between `observe` and `act`."""
        return self._engine.level_seeds()

    def save(self) -> list[bytes]:
        """State of every environment; call only between `observe` and `act`."""
        return self._engine.save()

    def restore(self, states: list[bytes]) -> None:
        """Restores states from `save`: the same actions then lead to the same frames, whatever was played since."""
        self._engine.restore(states)

    def copy(self, states: list[bytes]) -> "Simulator":
        """Makes a simulator of environments in these states from `save`; it has no threads, so `observe` steps it."""
        simulator = copy(self)
        simulator.num_envs = len(states)
        simulator._open(num_threads=0)
        simulator.restore(states)
        return simulator

    def close(self) -> None:
        self._engine.close()

    def _open(self, num_threads: int) -> None:
        self._engine = open_engine(self.num_envs, num_threads, **self._options)

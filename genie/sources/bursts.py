"""The simulator played many frames at a time, for those who need not see a frame to choose the next actions."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from genie.sources.simulator import Simulator

PART_ENVS = 8  # played by one thread in a row: few, so that they stay in its core's cache and cores share evenly


class Bursts:
    """Goes on from where a simulator is, and plays what it would play, in some four fifths of the core time.

    Procgen's own threads take turns at all environments, one step each, and wake the caller after each. Here a few
    environments are a simulator without threads, and one of Python's threads plays them through the whole burst.

    Args:
        simulator: is left as it is.
        num_threads: that play; 0 takes one a core. What is played does not depend on it.
    """

    def __init__(self, simulator: Simulator, num_threads: int = 0):
        self.num_envs = simulator.num_envs
        states = simulator.save()
        parts = [slice(start, start + PART_ENVS) for start in range(0, self.num_envs, PART_ENVS)]
        self._parts = [(part, simulator.copy(states[part])) for part in parts]
        self._level_seeds = np.empty(self.num_envs, np.int64)
        self._num_threads = num_threads or os.cpu_count()
        self._threads = ThreadPoolExecutor(self._num_threads)

    def begin(self, actions: np.ndarray, frames: np.ndarray) -> None:
        """Begins to play a burst of T frames; returns at once, and the threads go on alone until `finish`.

        Args:
            actions: `(num_envs, T)`, each held from its frame on.
            frames: `(num_envs, T, 64, 64, 3)` uint8, to be filled.
        """
        is_new, level_seeds = np.empty(actions.shape, bool), np.empty(actions.shape, np.int64)
        parts = iter(self._parts)  # shared: a thread that is done with one takes the next
        self._played = is_new, level_seeds
        self._turns = [
            self._threads.submit(self._play, parts, actions, frames, is_new, level_seeds)
            for _ in range(self._num_threads)
        ]

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Waits until what was begun is played.

        Returns:
            `(num_envs, T)` bool: a new life began on the way to this frame; and `(num_envs, T)` int64: its level.
        """
        for turn in self._turns:
            turn.result()
        return self._played

    def close(self) -> None:
        self._threads.shutdown()
        for _, simulator in self._parts:
            simulator.close()

    def _play(
        self, parts: Iterator, actions: np.ndarray, frames: np.ndarray, is_new: np.ndarray, level_seeds: np.ndarray
    ) -> None:
        for part, simulator in parts:
            for t in range(actions.shape[1]):
                frames[part, t], is_new[part, t] = simulator.observe()
                if is_new[part, t].any():  # the only time when levels change: asking takes long
                    self._level_seeds[part] = simulator.level_seeds()
                level_seeds[part, t] = self._level_seeds[part]
                simulator.act(actions[part, t])

"""Plays the simulator many frames at a time, for policies that choose actions without seeing frames."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from genie.sources.simulator import Simulator

PART_ENVS = 8  # environments per unit of work: few, so that they fit a core's cache and the load is balanced


class Bursts:
    """Continues from a simulator's state with identical results, in about four fifths of the core time.

    Procgen's own threads step all environments in turn and wake the caller after each step. Here each group of a few
    environments is a simulator without threads, and one Python thread plays it through the whole burst.

    Args:
        simulator: provides the initial state; not modified.
        num_threads: number of threads; 0 means one per core. Results do not depend on it.
    """

    def __init__(self, simulator: Simulator, num_threads: int = 0):
        self.num_envs = simulator.num_envs
        states = simulator.save()
        parts = [slice(start, start + PART_ENVS) for start in range(0, self.num_envs, PART_ENVS)]
        self._parts = [(part, simulator.copy(states[part])) for part in parts]
        self._level_seeds = np.empty(self.num_envs, np.int64)
        self._num_threads = num_threads or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._num_threads)

    def begin(self, actions: np.ndarray, frames: np.ndarray) -> None:
        """Starts a burst of T frames and returns immediately; the threads run in the background until `finish`.

        Args:
            actions: `(num_envs, T)`, each held from its frame on.
            frames: `(num_envs, T, 64, 64, 3)` uint8, filled by the burst.
        """
        is_new, level_seeds = np.empty(actions.shape, bool), np.empty(actions.shape, np.int64)
        parts = iter(self._parts)  # shared: a thread that finishes one part takes the next
        self._played = is_new, level_seeds
        self._turns = [
            self._threads.submit(self._play, parts, actions, frames, is_new, level_seeds)
            for _ in range(self._num_threads)
        ]

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Waits for the current burst.

        Returns:
            `(num_envs, T)` bool: whether a new life began between the previous frame and this one; and
            `(num_envs, T)` int64: the frame's level.
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
                if is_new[part, t].any():  # levels change only then, and the query is slow
                    self._level_seeds[part] = simulator.level_seeds()
                level_seeds[part, t] = self._level_seeds[part]
                simulator.act(actions[part, t])

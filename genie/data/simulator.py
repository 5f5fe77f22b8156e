"""Procgen stepped as one batch, and what its actions do."""

import contextlib
import io
import os
from copy import copy
from importlib.metadata import PackageNotFoundError, version

import numpy as np

with contextlib.redirect_stderr(io.StringIO()):  # the old gym, which procgen pulls, prints a notice on import
    from procgen import ProcgenGym3Env

NUM_ACTIONS = 15
EFFECTIVE_ACTIONS = ("stay", "left", "right", "jump", "jump_left", "jump_right")
ACTION_OF_EFFECT = {"stay": 4, "left": 1, "right": 7, "jump": 5, "jump_left": 2, "jump_right": 8}
_EFFECT_OF_ACTION = np.array([1, 1, 4, 0, 0, 3, 2, 2, 5, 0, 0, 0, 0, 0, 0])


def effective_action(actions: np.ndarray) -> np.ndarray:
    """Maps simulator actions 0..14 to indices of `EFFECTIVE_ACTIONS`, as CoinRun's physics does.

    An action below 9 is `3 * (dx + 1) + (dy + 1)`; down only drops through crates, and 9..14 do nothing.
    """
    return _EFFECT_OF_ACTION[actions]


def distribution() -> dict[str, str]:
    """Which simulator is installed: it comes as two packages, whose backgrounds differ slightly."""
    for name in ("procgen", "procgen-mirror"):
        with contextlib.suppress(PackageNotFoundError):
            return {"simulator": name, "simulator_version": version(name)}
    raise AssertionError("procgen was imported but is not installed")


class Simulator:
    """`num_envs` environments, all at once; each plays one random level after another.

    Args:
        start_level, num_levels: levels are drawn from `start_level <= seed < start_level + num_levels`.
        action_repeat: simulator steps an action is held.
        num_threads: of the simulator; 0 takes one a core. What is played does not depend on it.
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
        self._steps_left = 0  # of the held actions, beyond the one the threads are at
        self._options = {
            "env_name": env_name,
            "distribution_mode": distribution_mode,
            "use_backgrounds": backgrounds,
            "start_level": start_level,
            "num_levels": num_levels,
            "rand_seed": seed,
        }
        self._open(num_threads or os.cpu_count())

    def act(self, actions: np.ndarray) -> None:
        """Begins to hold `actions (num_envs,)`; returns at once, and the simulator's threads go on alone."""
        self._actions = actions.astype(np.int32)
        self._env.act(self._actions)
        self._steps_left = self._repeat - 1

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """Waits until the actions have been held for `action_repeat` steps.

        Returns:
            frames `(num_envs, 64, 64, 3)` uint8, the simulator's own memory, valid until `act`; and
            `(num_envs,)` bool: a new life began on the way to this frame.
        """
        _, observation, is_first = self._env.observe()
        is_new = is_first.copy()
        while self._steps_left:
            self._steps_left -= 1
            self._env.act(self._actions)
            self._env.observe()
            is_new |= is_first
        return observation["rgb"], is_new

    def level_seeds(self) -> np.ndarray:
        """The level each environment plays, `(num_envs,)` int64; to be asked between `observe` and `act`."""
        return np.array([info["level_seed"] for info in self._env.get_info()], np.int64)

    def save(self) -> list[bytes]:
        """The state of every environment; to be asked between `observe` and `act`."""
        return self._env.callmethod("get_state")

    def restore(self, states: list[bytes]) -> None:
        """Goes back to what `save` gave: the same actions then lead to the same frames, whatever was played since."""
        self._env.callmethod("set_state", states)

    def copy(self, states: list[bytes]) -> "Simulator":
        """A simulator of environments in these states, that `save` gave; without threads: `observe` plays."""
        simulator = copy(self)
        simulator.num_envs = len(states)
        simulator._open(num_threads=0)
        simulator.restore(states)
        return simulator

    def close(self) -> None:
        self._env.close()

    def _open(self, num_threads: int) -> None:
        self._env = ProcgenGym3Env(num=self.num_envs, num_threads=num_threads, **self._options)
        self._env._reuse_arrays = True  # procgen does not pass gym3's option on; the copies cost 5% of the speed

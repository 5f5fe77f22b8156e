"""Procgen's C++ engine as the Python packages offer it: `procgen`, its mirror, and `procgen-gym` on Python 3.13.

All are the same game; their backgrounds differ slightly.
"""

import contextlib
import io
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

import numpy as np

PACKAGES = ("procgen", "procgen-mirror", "procgen-gym")
INSTALL = "pip install 'mini-genie[train]'"
LIBRARIES = "apt-get install libgl1 libglib2.0-0"


class EngineError(ValueError):
    """The simulator cannot be loaded; the message names the cause and the fix."""


class Engine(Protocol):
    """`num_envs` environments, stepped together."""

    def act(self, actions: np.ndarray) -> None:
        """Takes a step under `(num_envs,)` actions; may return before it is done."""

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """Frames `(num_envs, 64, 64, 3)` uint8, valid until `act`, and whether each is a life's first `(num_envs,)`."""

    def level_seeds(self) -> np.ndarray:
        """The level of each, `(num_envs,)` int64; to be asked between `observe` and `act`."""

    def save(self) -> list[bytes]:
        """The state of each; to be asked between `observe` and `act`."""

    def restore(self, states: Sequence[bytes]) -> None:
        """Goes back to what `save` gave."""

    def close(self) -> None:
        """Ends it."""


def distribution() -> dict[str, str]:
    """Which simulator is installed, and its version.

    Raises:
        EngineError: none is.
    """
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            return {"simulator": name, "simulator_version": version(name)}
    raise EngineError(f"no simulator is installed: {INSTALL}")


def open_engine(num_envs: int, num_threads: int, **options: str | int | bool) -> Engine:
    """Starts environments.

    Args:
        num_envs: how many.
        num_threads: that step them; with 0 whoever calls does.
        options: Procgen's own.

    Raises:
        EngineError: no simulator is installed, or it lacks a system library.
    """
    name = distribution()["simulator"]
    make = _GymEngine if name == "procgen-gym" else _Gym3Engine
    try:
        return make(num_envs, num_threads, options)
    except OSError as error:  # the engine is linked to libGL and glib, and uses neither
        cause = " ".join(str(error).split())
        raise EngineError(f"{name} cannot load its library ({cause}); on Debian or Ubuntu: {LIBRARIES}") from None


class _Gym3Engine:
    """Of `procgen`: `act` returns at once, and the engine's threads go on alone."""

    def __init__(self, num_envs: int, num_threads: int, options: dict):
        with contextlib.redirect_stderr(io.StringIO()):  # the old gym, which procgen pulls, prints a notice on import
            from procgen import ProcgenGym3Env

        self._env = ProcgenGym3Env(num=num_envs, num_threads=num_threads, **options)
        self._env._reuse_arrays = True  # procgen does not pass gym3's option on; the copies cost 5% of the speed

    def act(self, actions: np.ndarray) -> None:
        self._env.act(actions)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        _, observation, is_first = self._env.observe()
        return observation["rgb"], is_first

    def level_seeds(self) -> np.ndarray:
        return np.array([info["level_seed"] for info in self._env.get_info()], np.int64)

    def save(self) -> list[bytes]:
        return self._env.callmethod("get_state")

    def restore(self, states: Sequence[bytes]) -> None:
        self._env.callmethod("set_state", states)

    def close(self) -> None:
        self._env.close()


class _GymEngine:
    """Of `procgen-gym`: the step is taken when it is observed."""

    def __init__(self, num_envs: int, num_threads: int, options: dict):
        from procgen_gym import ProcgenVecEnv

        self._env = ProcgenVecEnv(num_envs=num_envs, num_threads=num_threads, **options)
        self._actions: np.ndarray | None = None
        self._is_first = np.ones(num_envs, bool)  # until a step, each plays its first level

    def act(self, actions: np.ndarray) -> None:
        self._actions = actions

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        if self._actions is None:
            self._frames, self._info = self._env.reset()
        else:
            self._frames, _, self._is_first, _, self._info = self._env.step(self._actions)
            self._actions = None
        return self._frames, self._is_first

    def level_seeds(self) -> np.ndarray:
        return self._info["level_seed"].astype(np.int64)

    def save(self) -> list[bytes]:
        return self._env.get_state()

    def restore(self, states: Sequence[bytes]) -> None:
        self._env.set_state(states)

    def close(self) -> None:
        self._env.close()

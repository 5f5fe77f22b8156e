"""Adapters for the packages of Procgen's C++ engine: `procgen`, its mirror, and `procgen-gym` on Python 3.13.

All run the same game; their backgrounds differ slightly.
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
    """Interface of `num_envs` environments that are stepped together."""

    def act(self, actions: np.ndarray) -> None:
        """Starts a step with actions `(num_envs,)`; may return before the step is complete."""

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """Frames `(num_envs, 64, 64, 3)` uint8, valid until `act`, and whether each starts a life, `(num_envs,)`."""
        ...

    def level_seeds(self) -> np.ndarray:
        """Level seed of each environment, `(num_envs,)` int64; to be called between `observe` and `act`."""
        ...

    def save(self) -> list[bytes]:
        """State of each environment; to be called between `observe` and `act`."""
        ...

    def restore(self, states: Sequence[bytes]) -> None:
        """Restores states returned by `save`."""

    def close(self) -> None:
        """Closes the environments."""


def distribution() -> dict[str, str]:
    """Name and version of the installed simulator.

    Raises:
        EngineError: no simulator is installed.
    """
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            return {"simulator": name, "simulator_version": version(name)}
    raise EngineError(f"no simulator is installed: {INSTALL}")


def open_engine(num_envs: int, num_threads: int, **options: str | int | bool) -> Engine:
    """Starts environments.

    Args:
        num_envs: number of environments.
        num_threads: number of threads that step them; 0: the calling thread.
        options: options of Procgen.

    Raises:
        EngineError: no simulator is installed, or it lacks a system library.
    """
    name = distribution()["simulator"]
    make = _GymEngine if name == "procgen-gym" else _Gym3Engine
    try:
        return make(num_envs, num_threads, options)
    except OSError as error:  # the engine links libGL and glib but uses neither
        cause = " ".join(str(error).split())
        raise EngineError(f"{name} cannot load its library ({cause}); on Debian or Ubuntu: {LIBRARIES}") from None


class _Gym3Engine:
    """Engine of `procgen`: `act` returns at once, and the engine's threads step in the background."""

    def __init__(self, num_envs: int, num_threads: int, options: dict):
        with contextlib.redirect_stderr(io.StringIO()):  # procgen's dependency gym prints a notice on import
            from procgen import ProcgenGym3Env  # pyright: ignore[reportMissingImports]

        self._env = ProcgenGym3Env(num=num_envs, num_threads=num_threads, **options)
        self._env._reuse_arrays = True  # procgen does not forward this gym3 option; copying costs 5% of the speed

    def act(self, actions: np.ndarray) -> None:
        self._env.act(actions)  # pyright: ignore[reportArgumentType]

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
    """Engine of `procgen-gym`: `observe` takes the step."""

    def __init__(self, num_envs: int, num_threads: int, options: dict):
        from procgen_gym import ProcgenVecEnv  # pyright: ignore[reportMissingImports]

        self._env = ProcgenVecEnv(num_envs=num_envs, num_threads=num_threads, **options)
        self._actions: np.ndarray | None = None
        self._is_first = np.ones(num_envs, bool)  # before the first step, each frame is the first of a life

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

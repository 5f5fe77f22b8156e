"""The world as a Gymnasium environment and as a vector environment.

    gymnasium.make("genie.world.gym_env:MiniGenie-v0")
    gymnasium.make_vec("genie.world.gym_env:MiniGenie-v0", num_envs=8)

Actions are latent actions. There is no reward, and dreams do not terminate: episodes are truncated.

Axes: `B` environments, `T` prompt frames, `H W C` pixels, `A` latent actions.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import gymnasium
import numpy as np
import torch
from gymnasium.error import ClosedEnvironmentError
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from genie.world.half_blocks import NUM_LINES, half_blocks
from genie.world.prompts import Prompt
from genie.world.world_model import WorldModel

MAX_EPISODE_STEPS = 250  # CoinRun's own 1000 steps, of which a frame spans four
RENDER_FPS = 15


class EnvError(ValueError):
    """An episode cannot start; the message names the cause and the fix."""


class GenieEnv(gymnasium.Env):
    """Gymnasium environment of one dream.

    `reset(options={"prompt": frames_THWC})` starts from the given uint8 frames. Without a prompt, it starts from one of
    the world's own, drawn with the seed. The seed also determines all sampling in the episode.

    `render_mode="human"` draws in the terminal, with two pixels per character. It needs neither a window nor a package
    that opens one, and works over SSH.

    Args:
        world: the world, its folder, its name on the hub, or None for the shipped one.
        render_mode: `rgb_array`, `human` or None.
        device: device of a world that is loaded.

    Raises:
        PretrainedError: the world does not exist.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": RENDER_FPS}  # noqa: RUF012 - Gymnasium's

    def __init__(
        self,
        world: WorldModel | str | Path | None = None,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
    ):
        self.world = _own_world(world, device)
        self.render_mode = render_mode
        self.action_space = Discrete(self.world.num_actions)
        self.observation_space = Box(0, 255, self.world.frame_shape, np.uint8)
        self._frame_HWC: np.ndarray | None = None
        self._drawn_at: float | None = None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        """Starts a dream; `info` holds the source of its prompt and the names of the actions.

        Raises:
            EnvError: no prompt is given, and the world has none of its own.
            WorldError: the given prompt is invalid.
        """
        super().reset(seed=seed)
        prompt, noise_seed = _draw_start(self.world, self.np_random, options)
        self._frame_HWC = self.world.reset(prompt.frames_THWC, actions=prompt.actions, seed=noise_seed)
        self._draw()
        return self._frame_HWC, {"prompt": prompt.source, "actions": _action_names(self.world)}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Advances the dream, given a latent action; `info` holds its name."""
        self._frame_HWC = self.world.step(action)
        self._draw()
        return self._frame_HWC, 0.0, False, False, {"action": _action_names(self.world)[action]}

    def render(self) -> np.ndarray | None:
        """The frame if `render_mode` is `rgb_array`, else None; with `human`, `reset` and `step` draw it."""
        return self._frame_HWC.copy() if self.render_mode == "rgb_array" else None  # pyright: ignore[reportOptionalMemberAccess]

    def _draw(self) -> None:
        if self.render_mode != "human":
            return
        assert self._frame_HWC is not None
        over_the_last = "" if self._drawn_at is None else f"\x1b[{NUM_LINES}A\r"
        if self._drawn_at is not None:
            time.sleep(max(0.0, self._drawn_at + 1 / RENDER_FPS - time.monotonic()))
        print(over_the_last + half_blocks(self._frame_HWC), flush=True)
        self._drawn_at = time.monotonic()


class GenieVectorEnv(VectorEnv):
    """Gymnasium vector environment of many dreams, computed as one batch.

    Environment `i` starts like a `GenieEnv` seeded with `seed + i`. With one MaskGIT step at temperature 0 its frames
    are also the same, up to rounding. Otherwise sampling is random, and random numbers are drawn for the whole batch.
    All environments are truncated together and reset in the next step (`AutoresetMode.NEXT_STEP`), which ignores its
    actions. A prompt in `options` is one for all, `(T, H, W, C)`, or one for each, `(B, T, H, W, C)`. Episodes that
    start by autoreset use it too, until `reset` is called again.

    Args:
        num_envs: number of environments, B.
        world, device: as for `GenieEnv`.
        render_mode: `rgb_array` or None.
        max_episode_steps: number of steps after which an episode is truncated; None: episodes are never truncated.

    Raises:
        PretrainedError: the world does not exist.
    """

    metadata = {  # noqa: RUF012 - Gymnasium's
        "render_modes": ["rgb_array"],
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        world: WorldModel | str | Path | None = None,
        render_mode: str | None = None,
        device: torch.device | str = "cpu",
        max_episode_steps: int | None = None,
    ):
        self.num_envs = num_envs
        self.world = _own_world(world, device)
        self.render_mode = render_mode
        self.single_action_space = Discrete(self.world.num_actions)
        self.single_observation_space = Box(0, 255, self.world.frame_shape, np.uint8)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._max_episode_steps = max_episode_steps
        self._num_steps = 0
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._options: dict | None = None
        self._frames_BHWC: np.ndarray | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict | None = None
    ) -> tuple[np.ndarray, dict]:
        """Starts all dreams; `infos` holds the source of each prompt.

        Args:
            seed: seed of the first environment, where environment `i` uses `seed + i`, or one seed per environment.
                Where it is None, the generator is not reseeded.
            options: optional; may hold a prompt.

        Raises:
            EnvError: as for `GenieEnv`, or the number of seeds is wrong.
            WorldError: as for `GenieEnv`.
        """
        if seed is None or isinstance(seed, int | np.integer):
            seeds = [None if seed is None else int(seed) + index for index in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise EnvError(f"{len(seeds)} seeds for {self.num_envs} environments: give one, or one for each")
        super().reset(seed=seeds[0])
        for index, of_one in enumerate(seeds):
            if of_one is not None:
                self._generators[index] = seeding.np_random(of_one)[0]
        self._options = options
        return self._begin()

    def _begin(self) -> tuple[np.ndarray, dict]:
        self._check_open()
        starts = [
            _draw_start(self.world, generator, self._options, index) for index, generator in enumerate(self._generators)
        ]
        prompts, noise_seeds = zip(*starts, strict=True)
        frames_BTHWC = np.stack([prompt.frames_THWC for prompt in prompts])
        known = all(prompt.actions is not None for prompt in prompts)
        actions_BS = np.stack([prompt.actions for prompt in prompts]) if known else None
        self._frames_BHWC = self.world.reset(frames_BTHWC, actions=actions_BS, seed=noise_seeds[0])
        self._num_steps = 0
        return self._frames_BHWC, self._infos("prompt", [prompt.source for prompt in prompts])

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Advances all dreams, given `(B,)` latent actions; `infos` holds their names.

        Raises:
            ClosedEnvironmentError: `close` was called.
        """
        self._check_open()
        nothing, never = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        if self._num_steps == self._max_episode_steps:
            frames_BHWC, infos = self._begin()
            return frames_BHWC, nothing, never, never.copy(), infos
        self._frames_BHWC = self.world.step(np.asarray(actions))
        self._num_steps += 1
        truncated = np.full(self.num_envs, self._num_steps == self._max_episode_steps)
        names = _action_names(self.world)
        return self._frames_BHWC, nothing, never, truncated, self._infos("action", [names[a] for a in actions])

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The frames if `render_mode` is `rgb_array`, else None."""
        return tuple(self._frames_BHWC.copy()) if self.render_mode == "rgb_array" else None  # pyright: ignore[reportOptionalMemberAccess]

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedEnvironmentError("these environments were closed; make others")

    def _infos(self, key: str, values: list[str]) -> dict:
        return {key: np.array(values, object), f"_{key}": np.ones(self.num_envs, bool)}


def _own_world(world: WorldModel | str | Path | None, device: torch.device | str) -> WorldModel:
    """A world that is not shared: a fork of the given one, or a newly loaded one."""
    return world.fork() if isinstance(world, WorldModel) else WorldModel.from_pretrained(world, device)


def _draw_start(
    world: WorldModel, generator: np.random.Generator, options: dict | None, index: int = 0
) -> tuple[Prompt, int]:
    """Draws the prompt of a dream and its sampling seed; `index` selects among several given prompts."""
    given = (options or {}).get("prompt")
    if given is not None:
        given = np.asarray(given)
        prompt = Prompt(given[index] if given.ndim == 5 else given, None, "given")
    elif world.prompts:
        prompt = world.prompts[generator.integers(len(world.prompts))]
    else:
        raise EnvError('this world has no prompts of its own: give one, reset(options={"prompt": frames_THWC})')
    return prompt, int(generator.integers(2**31))


def _action_names(world: WorldModel) -> tuple[str, ...]:
    """What each latent action does: a true action's name, a direction, or its number where nothing is known of it."""
    return tuple(button.action.replace("_", " ") or str(latent) for latent, button in enumerate(world.buttons))


gymnasium.register(
    "MiniGenie-v0",
    entry_point="genie.world.gym_env:GenieEnv",
    vector_entry_point="genie.world.gym_env:GenieVectorEnv",
    max_episode_steps=MAX_EPISODE_STEPS,
)

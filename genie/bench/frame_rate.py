"""Benchmark of playing a world: with and without its key-value cache, and at larger sizes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import nn

from genie.bench.figures import Figure
from genie.bench.peak import peak_memory
from genie.bench.timing import take_turns
from genie.core.params import Params
from genie.models.dynamics import Dynamics
from genie.models.memory import Memory
from genie.models.recent_motion import REMEMBERED
from genie.play.opening import open_world
from genie.world.world_model import WorldModel

ROUNDS, FRAMES = 5, 3  # timed rounds, and frames per round
MASKGIT_STEPS = 8  # measured in addition to the world's own number
BATCH = 8  # worlds played at once


class Uncached(nn.Module):
    """Stand-in for a world's dynamics that has no cache: it rereads the whole past in every MaskGIT step."""

    def __init__(self, dynamics: Dynamics):
        super().__init__()
        self._dynamics = dynamics
        self.config, self.see_through = dynamics.config, dynamics.see_through
        self.remember, self.expect, self.append = dynamics.remember, dynamics.expect, dynamics.append
        self.num_tokens, self.mask_token, self.no_action = dynamics.num_tokens, dynamics.mask_token, dynamics.no_action
        # A frame depends on C earlier frames per layer. The first of those is read together with the frame before it,
        # and its motion-compensated prediction depends on the displacements before it.
        self.past_frames = dynamics.config.num_layers * dynamics.config.context_frames + 1 + REMEMBERED

    def predict(self, tokens_BN: torch.Tensor, memory: Memory) -> tuple[torch.Tensor, Memory]:
        """As `Dynamics.predict`, but the memory stays unread, and drops frames too old to have an effect."""
        unread_BTN, led_to_BT = memory.unread_BTN[:, -self.past_frames :], memory.led_to_BT[:, -self.past_frames - 1 :]
        anew = self._dynamics.remember(unread_BTN, led_to_BT[:, :-1])
        memory = self._dynamics.expect(anew, led_to_BT[:, -1])
        return self._dynamics.predict(tokens_BN, memory)[0], memory


def with_dynamics(world: WorldModel, dynamics: nn.Module, maskgit_steps: int | None = None) -> WorldModel:
    """The world with another dynamics model or another number of MaskGIT steps per frame."""
    steps = maskgit_steps or world.sampling.maskgit_steps
    sampling = replace(world.sampling, maskgit_steps=steps)
    return WorldModel(world.tokenizer, dynamics, world.steering, sampling, world.buttons, world.prompts)  # pyright: ignore[reportArgumentType]


def fresh_dynamics(world: WorldModel, **changes: int | bool) -> Dynamics:
    """A dynamics model with a changed config and untrained weights, which take the same time as trained ones."""
    return Dynamics(replace(world.dynamics.config, **changes)).to(world.device)


def player(world: WorldModel, batch: int | None = None, num_played: int = 0) -> Callable[[], np.ndarray]:
    """Returns a function that plays one frame and returns it, or the frames of all worlds of a batch. Successive calls
    cycle through the latent actions.

    Args:
        world: a fork of it is played.
        batch: number of worlds.
        num_played: frames played before, in one MaskGIT step each: the speed of later ones depends only on how many
            frames the world remembers.
    """
    world, prompt_THWC, sampling = world.fork(), world.prompts[0].frames_THWC, world.sampling
    world.reset(prompt_THWC if batch is None else np.repeat(prompt_THWC[None], batch, axis=0))
    actions = cycle(range(world.num_actions))

    def step() -> np.ndarray:
        return world.step(next(actions) if batch is None else np.full(batch, next(actions)))

    world.sampling = replace(sampling, maskgit_steps=1)
    _play(step, num_played)
    world.sampling = sampling
    return step


def check(params: Params, source: str | None) -> None:
    """Opens the world that `measure` plays, so that its errors are raised early."""
    open_world(source, params)


def measure(params: Params, folder: Path, source: str | None = None) -> list[Figure]:
    """Measures a world as opened by `genie play`, or the shipped one, with as many threads as playing uses."""
    return measure_world(open_world(source, params))


def measure_world(world: WorldModel) -> list[Figure]:
    """Measures frames per second of any world that has a prompt."""
    dynamics, config = world.dynamics, world.dynamics.config
    cached = player(world)
    _play(cached, FRAMES)
    peak = peak_memory("sampling", beside="machine.peak_memory")
    uncached, context = Uncached(dynamics), config.context_frames
    full = {"num_played": context + 1}  # frames after which the past has its full length
    full_uncached = {"num_played": uncached.past_frames + 1}
    players = {
        "cached": player(world, **full),
        "uncached": player(with_dynamics(world, uncached), **full_uncached),
        "steps": player(with_dynamics(world, dynamics, MASKGIT_STEPS), **full),
        "steps uncached": player(with_dynamics(world, uncached, MASKGIT_STEPS), **full_uncached),
        "batch": player(world, BATCH, **full),
        "width": player(with_dynamics(world, fresh_dynamics(world, width=2 * config.width)), **full),
        "context": player(
            with_dynamics(world, fresh_dynamics(world, context_frames=2 * context)), num_played=2 * context + 1
        ),
    }
    seconds = take_turns({name: partial(_play, step, FRAMES) for name, step in players.items()}, ROUNDS)
    speed = {name: FRAMES / taken for name, taken in seconds.items()}
    base, steps = "sampling.frames_per_second", f"sampling.steps_{MASKGIT_STEPS}"
    return [
        Figure("sampling.uncached_frames_per_second", speed["uncached"], "frames/s"),
        Figure(base, speed["cached"], "frames/s", "sampling.uncached_frames_per_second"),
        Figure(f"{steps}.uncached_frames_per_second", speed["steps uncached"], "frames/s"),
        Figure(f"{steps}.frames_per_second", speed["steps"], "frames/s", f"{steps}.uncached_frames_per_second"),
        Figure(f"sampling.batch_{BATCH}.frames_per_second", BATCH * speed["batch"], "frames/s", base),
        Figure("sampling.width_x2.frames_per_second", speed["width"], "frames/s", base),
        Figure("sampling.context_x2.frames_per_second", speed["context"], "frames/s", base),
        peak,
    ]


def _play(step: Callable[[], np.ndarray], frames: int) -> None:
    for _ in range(frames):
        step()

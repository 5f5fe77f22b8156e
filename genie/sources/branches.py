"""What every action would have done: the real game, branched at many states.

Axes: `M` states, `T` frames of their past, `S = T - 1` transitions, `E` effective true actions, `F` frames that each is
held for, `H W C` pixels (uint8).
"""

from collections import deque
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from genie.core.actions import ACTION_OF_EFFECT, EFFECTIVE_ACTIONS, effective_action
from genie.core.frames import FRAME_SHAPE
from genie.core.params import CollectParams
from genie.sources.levels import shards_of, simulator_of
from genie.sources.simulator import Simulator

FRAMES_BETWEEN = 4  # that are played between one state and the past of the next
MAX_PLAYED = 100  # times as many frames as would do if every state counted


class BranchError(ValueError):
    """Hardly any state can be branched; the message names the cause and the fix."""


@dataclass(frozen=True)
class Branches:
    """M states with their past and all their futures.

    Attributes:
        past_MTHWC: the frames that led to each state, its own the last.
        taken_MS: the effective actions between them.
        held_MEFHWC: the frames that follow while each effective action is held.
    """

    past_MTHWC: np.ndarray
    taken_MS: np.ndarray
    held_MEFHWC: np.ndarray

    @property
    def next_MEHWC(self) -> np.ndarray:
        """The first frame after each state."""
        return self.held_MEFHWC[:, :, 0]


def play_branches(
    params: CollectParams, split: str, num_states: int, past_frames: int, held_frames: int = 1
) -> Branches:
    """Plays the first shard of a split anew, as `collect` did, and branches it now and then.

    States with less than `past_frames` behind them in this life are left out, and so are those from which some
    action, held so long, ends the life: what follows would be of another level.

    Args:
        num_states: M.
        past_frames: T, at least 1.
        held_frames: F, at least 1.

    Raises:
        BranchError: lives are so short that next to no state has such a past and a future under all actions.
    """
    stride = past_frames + FRAMES_BETWEEN
    max_played = MAX_PLAYED * stride * -(-num_states // params.num_envs)
    simulator, policy = simulator_of(params, shards_of(params, split)[0])
    with closing(simulator):
        past, taken = deque(maxlen=past_frames), deque(maxlen=past_frames - 1)
        age = np.zeros(params.num_envs, int)
        found = []
        num_found = num_played = 0
        while num_found < num_states:
            frames_BHWC, is_new = simulator.observe()
            age = np.where(is_new, 1, age + 1)
            past.append(frames_BHWC.copy())
            num_played += 1
            if num_played > max_played:
                raise BranchError(
                    f"only {num_found} of {num_states} states live {past_frames} frames before and {held_frames} after "
                    "whatever is held: lower evaluate.num_states, evaluate.steered_states, evaluate.steered_frames, "
                    "dynamics.context_frames or collect.action_repeat"
                )
            if num_played % stride == 0:
                held_BEFHWC, lives_on = _branch(simulator, held_frames)
                chosen = np.flatnonzero(lives_on & (age >= past_frames))
                past_BTHWC = np.stack(past, axis=1)
                taken_BS = np.stack(taken, axis=1) if taken else np.empty((params.num_envs, 0), int)
                found.append((past_BTHWC[chosen], taken_BS[chosen], held_BEFHWC[chosen]))
                num_found += len(chosen)
            actions = policy()
            taken.append(effective_action(actions))
            simulator.act(actions)
    return Branches(*(np.concatenate(parts)[:num_states] for parts in zip(*found, strict=True)))


def _branch(simulator: Simulator, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """The frames `(num_envs, E, F, H, W, C)` under each action, and whether a life goes on under all of them; the
    simulator ends where it was."""
    state = simulator.save()
    held_BEFHWC = np.empty((simulator.num_envs, len(EFFECTIVE_ACTIONS), num_frames, *FRAME_SHAPE), np.uint8)
    lives_on = np.ones(simulator.num_envs, bool)
    for index, action in enumerate(EFFECTIVE_ACTIONS):
        for frame in range(num_frames):
            simulator.act(np.full(simulator.num_envs, ACTION_OF_EFFECT[action]))
            held_BEFHWC[:, index, frame], is_new = simulator.observe()
            lives_on &= ~is_new
        simulator.restore(state)
    return held_BEFHWC, lives_on

"""Branches: the real game continued from many saved states under each effective action.

Axes: `M` states, `T` frames of their past, `S = T - 1` transitions, `E` effective true actions, `F` frames for which
each is held, `H W C` pixels (uint8).
"""

import sys
from collections import deque
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from genie.core.actions import GameActions, game_actions
from genie.core.frames import FRAME_SHAPE
from genie.core.params import CollectParams
from genie.sources.levels import shards_of, simulator_of
from genie.sources.simulator import Simulator

FRAMES_BETWEEN = 4  # frames played between one state and the past of the next
MAX_PLAYED = 100  # limit, as a multiple of the frames needed if every state qualified


@dataclass(frozen=True)
class Branches:
    """M states, each with its past and its future under every effective action.

    Attributes:
        action_names: names of the effective actions.
        past_MTHWC: the frames up to and including each state's own.
        taken_MS: the effective actions between them.
        held_MEFHWC: the frames that follow while each effective action is held.
    """

    action_names: tuple[str, ...]
    past_MTHWC: np.ndarray
    taken_MS: np.ndarray
    held_MEFHWC: np.ndarray

    @property
    def next_MEHWC(self) -> np.ndarray:
        """The first frame after each state."""
        return self.held_MEFHWC[:, :, 0]


def play_branches(
    params: CollectParams, split: str, num_states: int, past_frames: int, held_frames: int = 1
) -> Branches | None:
    """Replays the first shard of a split as `collect` did, and branches it at regular intervals.

    A state is skipped if its life has fewer than `past_frames` frames so far, or if some action, held for
    `held_frames`, ends the life, because the following frames would show another level.

    Args:
        num_states: M.
        past_frames: T, at least 1.
        held_frames: F, at least 1.

    Returns:
        The branches; fewer than `num_states` if too few states have such a past and such a future under all actions,
        and None if no state has. Either case prints one line on stderr.
    """
    stride = past_frames + FRAMES_BETWEEN
    max_played = MAX_PLAYED * stride * -(-num_states // params.num_envs)
    game = game_actions(params.env_name)
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
                print(
                    f"only {num_found} of {num_states} states live {past_frames} frames before and {held_frames} after "
                    "whatever is held, so no others are measured: lower evaluate.num_states, evaluate.steered_states, "
                    "evaluate.steered_frames, dynamics.context_frames or collect.action_repeat",
                    file=sys.stderr,
                )
                break
            if num_played % stride == 0:
                held_BEFHWC, lives_on = _branch(simulator, game, held_frames)
                chosen = np.flatnonzero(lives_on & (age >= past_frames))
                past_BTHWC = np.stack(past, axis=1)
                taken_BS = np.stack(taken, axis=1) if taken else np.empty((params.num_envs, 0), int)
                found.append((past_BTHWC[chosen], taken_BS[chosen], held_BEFHWC[chosen]))
                num_found += len(chosen)
            actions = policy()
            taken.append(game.effective(actions))
            simulator.act(actions)
    if not num_found:
        return None
    return Branches(game.names, *(np.concatenate(parts)[:num_states] for parts in zip(*found, strict=True)))


def _branch(simulator: Simulator, game: GameActions, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames `(num_envs, E, F, H, W, C)` under each action, and whether each life continues under all of them; restores
    the simulator's state."""
    state = simulator.save()
    held_BEFHWC = np.empty((simulator.num_envs, len(game.names), num_frames, *FRAME_SHAPE), np.uint8)
    lives_on = np.ones(simulator.num_envs, bool)
    for index, action in enumerate(game.numbers):
        for frame in range(num_frames):
            simulator.act(np.full(simulator.num_envs, action))
            held_BEFHWC[:, index, frame], is_new = simulator.observe()
            lives_on &= ~is_new
        simulator.restore(state)
    return held_BEFHWC, lives_on

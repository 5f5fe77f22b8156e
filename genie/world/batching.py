"""Steps many worlds at once, in as few forward passes as they allow."""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from genie.world.world_model import WorldModel


def step_together(worlds: Sequence[WorldModel], actions: Sequence[int], num_threads: int = 1) -> list[np.ndarray]:
    """Steps each of many forks of one world, given a latent action for each.

    Each draws from a random generator of its own, so its dream is the same in any company, up to rounding.

    Args:
        worlds: the forks, all different.
        actions: the argument of `WorldModel.step` for each.
        num_threads: threads that step, each a share of the worlds. They do not wait for each other in every operation,
            as the threads of torch within one batch do, so they lose little where other programs use the cores too.

    Returns:
        The next frame of each world.

    Raises:
        WorldError: an action is invalid, or `reset` of a world was not called; no world is stepped.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for index, (world, action) in enumerate(zip(worlds, actions, strict=True)):
        world.pressed(action)  # raises
        groups[world.layout].append(index)
    batches = [group[share::num_threads] for group in groups.values() for share in range(min(num_threads, len(group)))]

    frames: dict[int, np.ndarray] = {}

    def step(batch: list[int]) -> None:
        of_batch = WorldModel.step_batch([worlds[index] for index in batch], [actions[index] for index in batch])
        frames.update(zip(batch, of_batch, strict=True))

    if len(batches) == 1:
        step(batches[0])
    else:
        with ThreadPoolExecutor(num_threads) as threads:
            list(threads.map(step, batches))
    return [frames[index] for index in range(len(worlds))]

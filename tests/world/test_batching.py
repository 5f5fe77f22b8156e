"""A dream is the same in any company, up to rounding: torch rounds convolutions of one frame otherwise than of many,
which changes a pixel in ten thousand by one. The next frame of such a pixel may be another, so each step is compared
from the same state; without motion compensation no frame is fed back, and whole dreams are compared."""

import numpy as np
import pytest
import torch

from genie.world import WorldError
from genie.world.batching import step_together
from genie.world.maskgit import Sampling

SEEDS, STEPS = (7, 8, 7, 9, 1), 5
SAMPLINGS = [Sampling(maskgit_steps=2, temperature=0.0), Sampling(maskgit_steps=3, temperature=1.0)]


@pytest.fixture(params=["shared_world", "uncompensated_world"])
def world(request):
    return request.getfixturevalue(request.param)


def start(world, sampling=SAMPLINGS[1]):
    """Starts dreams with different seeds and prompts, at different times."""
    worlds = []
    for index, seed in enumerate(SEEDS):
        worlds.append(world.fork())
        worlds[-1].sampling = sampling
        prompt = world.prompts[index % 3]
        worlds[-1].reset(prompt.frames_THWC, actions=prompt.actions, seed=seed)
        for step in range(2 * index):
            worlds[-1].step(step % world.num_actions)
    return worlds


def actions_at(step):
    return [(3 * index + step) % 5 for index in range(len(SEEDS))]


def tokens(world):
    return world._played()._memory.last_BN


def assert_same(frames, others):
    assert np.abs(np.stack(frames).astype(int) - np.stack(others)).max() <= 1


@pytest.mark.parametrize("num_threads", [1, 2, 7])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_each_step_is_that_of_the_world_alone(sampling, num_threads, world):
    worlds = start(world, sampling)
    for step in range(STEPS):
        alone = [world.fork() for world in worlds]
        frames = step_together(worlds, actions_at(step), num_threads)
        assert_same(frames, [world.step(action) for world, action in zip(alone, actions_at(step), strict=True)])
        for world, other in zip(worlds, alone, strict=True):
            assert torch.equal(tokens(world), tokens(other))
            assert world.arrows().tolist() == other.arrows().tolist()
            for mine, its in zip(world._played()._generators, other._played()._generators, strict=True):
                assert torch.equal(mine.get_state(), its.get_state())


def test_whole_dreams_are_those_of_worlds_alone(uncompensated_world):
    worlds, alone = start(uncompensated_world), start(uncompensated_world)
    for step in range(4 * STEPS):
        frames = step_together(worlds, actions_at(step))
        assert_same(frames, [world.step(action) for world, action in zip(alone, actions_at(step), strict=True)])
        assert all(torch.equal(tokens(one), tokens(other)) for one, other in zip(worlds, alone, strict=True))


def test_worlds_started_at_different_times_are_one_batch_in_the_long_run(world):
    worlds = start(world)
    assert len({world.layout for world in worlds}) > 1
    step_together(worlds, actions_at(0))
    step_together(worlds, actions_at(1))
    assert len({world.layout for world in worlds}) == 1
    assert len({int(world._played()._memory.num_read_B) for world in worlds}) == len(worlds)


def test_worlds_with_other_settings_are_stepped_by_themselves(world):
    worlds, sampling = start(world), SAMPLINGS[0]
    worlds[1].sampling = worlds[3].sampling = sampling
    alone = [world.fork() for world in worlds]
    frames = step_together(worlds, actions_at(0))
    assert_same(frames, [world.step(action) for world, action in zip(alone, actions_at(0), strict=True)])
    assert [world.sampling for world in worlds].count(sampling) == 2


def test_imagining_between_batches_changes_nothing(uncompensated_world):
    worlds, others = start(uncompensated_world), start(uncompensated_world)
    for step in range(3):
        others[2].imagine()  # reads the frame that the others read in the next step
        assert_same(step_together(worlds, actions_at(step)), step_together(others, actions_at(step)))
        assert all(torch.equal(tokens(one), tokens(other)) for one, other in zip(worlds, others, strict=True))


def test_an_invalid_action_steps_no_world(world):
    worlds = start(world)
    before = [world._played()._memory for world in worlds]
    with pytest.raises(WorldError, match="0 to 4"):
        step_together(worlds, [0, 1, 5, 2, 3])
    assert all(world._played()._memory is same for world, same in zip(worlds, before, strict=True))

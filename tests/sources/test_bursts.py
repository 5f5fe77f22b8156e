from contextlib import closing

import numpy as np
import pytest

from genie.core.actions import NUM_ACTIONS
from genie.core.frames import FRAME_SHAPE
from genie.core.params import GAMES
from genie.sources.bursts import PART_ENVS, Bursts
from genie.sources.simulator import Simulator


def simulator(**changes):
    options = {
        "env_name": "coinrun",
        "distribution_mode": "easy",
        "backgrounds": True,
        "num_envs": PART_ENVS + 3,
        "start_level": 7,
        "num_levels": 100,
        "action_repeat": 3,
        "seed": 5,
        "num_threads": 2,
    }
    return Simulator(**{**options, **changes})


@pytest.mark.parametrize("env_name", GAMES)
def test_bursts_play_what_the_simulator_plays(env_name):
    rng = np.random.default_rng(0)
    with closing(simulator(env_name=env_name)) as played, closing(Bursts(played, num_threads=3)) as bursts:
        num_new = 0
        for length in (1, 40, 7, 60):
            actions = rng.integers(0, NUM_ACTIONS, (played.num_envs, length))
            frames = np.empty((played.num_envs, length, *FRAME_SHAPE), np.uint8)
            bursts.begin(actions, frames)
            is_new, level_seeds = bursts.finish()
            for t in range(length):
                expected, expected_new = played.observe()
                np.testing.assert_array_equal(frames[:, t], expected)
                np.testing.assert_array_equal(is_new[:, t], expected_new)
                np.testing.assert_array_equal(level_seeds[:, t], played.level_seeds())
                played.act(actions[:, t])
            num_new += is_new.sum()
    assert num_new > played.num_envs or env_name == "plunder", "no life ended, so the test would prove little"


def test_a_fault_of_a_thread_is_raised():
    with closing(simulator()) as played, closing(Bursts(played)) as bursts:
        bursts.begin(np.zeros((played.num_envs, 4), int), np.empty((played.num_envs, 3, *FRAME_SHAPE), np.uint8))
        with pytest.raises(IndexError):
            bursts.finish()

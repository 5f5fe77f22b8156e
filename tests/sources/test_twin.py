from contextlib import closing

import numpy as np
import pytest

from genie.core.actions import game_actions
from genie.sources.twin import RealGame

RIGHT = game_actions("coinrun").names.index("right")
LEVEL, DEADLY_LEVEL = 0, 3  # in the deadly level, the policy dies in its fifth frame


@pytest.fixture
def game(tiny_params):
    with closing(RealGame(tiny_params.collect, LEVEL)) as game:
        yield game


def test_a_level_is_held_out_and_decides_all(game, tiny_params):
    levels = tiny_params.collect.levels
    frames_THWC, effects = game.begin(5)
    assert levels.train + levels.val <= game.level_seed < levels.train + levels.val + levels.test
    assert frames_THWC.shape == (len(effects) + 1, 64, 64, 3)
    with closing(RealGame(tiny_params.collect, LEVEL)) as same:
        again_THWC, same_effects = same.begin(5)
    assert np.array_equal(frames_THWC, again_THWC)
    assert effects == same_effects


def test_it_goes_on_from_the_last_frame_of_its_beginning(game, tiny_params):
    """The same simulator, played a frame longer, shows what the action pressed there leads to."""
    with closing(RealGame(tiny_params.collect, LEVEL)) as longer:
        frames_THWC, effects = longer.begin(6)
    begun_THWC, _ = game.begin(5)
    assert np.array_equal(begun_THWC, frames_THWC[:5])
    assert np.array_equal(game.step(effects[4])[0], frames_THWC[5])


def test_again_is_where_it_began(game):
    game.begin(4)
    first = [game.step(RIGHT)[0] for _ in range(5)]
    game.again()
    assert np.array_equal(first, [game.step(RIGHT)[0] for _ in range(5)])
    assert not np.array_equal(first[0], first[-1])


def test_a_life_that_ends_leaves_a_shorter_beginning(tiny_params):
    with closing(RealGame(tiny_params.collect, DEADLY_LEVEL)) as game:
        frames_THWC, effects = game.begin(7)
    assert 0 < len(frames_THWC) < 7
    assert len(effects) == len(frames_THWC) - 1


def test_a_life_ends(game):
    game.begin(4)
    ends = [game.step(RIGHT)[1] for _ in range(260)]  # a life lasts 1000 simulator steps, four per frame
    assert any(ends)
    assert not ends[0]

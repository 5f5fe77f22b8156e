import numpy as np
import pytest

from genie.bench.frame_rate import Uncached, fresh_dynamics, player, with_dynamics


@pytest.mark.parametrize("maskgit_steps", [1, 3])
def test_with_and_without_a_cache_the_same_is_played(shared_world, scrambled, maskgit_steps):
    """Without motion compensation, whose decoded pixels round differently in another batch; with it,
    `tests/models/test_dynamics.py` compares the logits."""
    plain = scrambled(fresh_dynamics(shared_world, motion_compensation=False))
    world = with_dynamics(shared_world, plain, maskgit_steps)
    uncached = Uncached(world.dynamics)
    with_cache, without = player(world), player(with_dynamics(world, uncached))
    frames = [(with_cache(), without()) for _ in range(2 * uncached.past_frames)]
    for cached_HWC, uncached_HWC in frames:
        np.testing.assert_array_equal(cached_HWC, uncached_HWC)
    assert len(np.unique([cached_HWC for cached_HWC, _ in frames], axis=0)) > 2, "it does not stand still"

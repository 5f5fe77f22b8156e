import torch

from genie.models.batch_axis import joined, repeated, split
from genie.models.recent_motion import RecentMotion

WORLDS = 6


def state(seed):
    generator = torch.Generator().manual_seed(seed)
    frame_BHWC, moved_BRd = (torch.rand(WORLDS, *shape, generator=generator) for shape in ((4, 4, 3), (4, 2)))
    keys, values = (torch.rand(WORLDS, 5, generator=generator) for _ in range(2))
    return RecentMotion(frame_BHWC, moved_BRd), [(keys, values)], None


def tensors(state):
    motion, ((keys, values),), nothing = state
    assert nothing is None
    assert isinstance(motion, RecentMotion)
    return [*motion, keys, values]


def test_what_is_joined_is_split_again():
    states = [state(0), state(1)]
    for part, whole in zip(split(joined(states), 2), states, strict=True):
        assert all(map(torch.equal, tensors(part), tensors(whole)))


def test_parts_are_copies():
    whole = state(0)
    tensors(split(whole, 3)[1])[0].zero_()
    assert all(map(torch.equal, tensors(whole), tensors(state(0))))


def test_each_world_is_repeated_in_a_row():
    for many, once in zip(tensors(repeated(state(0), 3)), tensors(state(0)), strict=True):
        assert len(many) == 3 * WORLDS
        for copy in range(3):
            assert torch.equal(many[copy::3], once)

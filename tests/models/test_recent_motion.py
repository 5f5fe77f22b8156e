import pytest
import torch
import torch.nn.functional as F

from genie.models.measured_size import at_measured_size
from genie.models.recent_motion import (
    COARSE,
    CUT_SHARE,
    REMEMBERED,
    RecentMotion,
    cut_short,
    look,
    measure,
    observe_motion,
)
from genie.models.registration import displacements
from tests.frames import LARGER_SIZES, enlarged

BATCH, FRAMES = 2, 7


@pytest.fixture
def frames_BTHWC(coinrun):
    starts = coinrun["val"].episode_starts[:BATCH]
    return torch.stack([torch.from_numpy(coinrun["val"].read(start, start + FRAMES)) for start in starts])


def test_transitions_are_observed_as_told(frames_BTHWC):
    """Compares with a slow reference: frame by frame, with the past counted backwards."""
    observed = observe_motion(frames_BTHWC)
    for row, frames_THWC in enumerate(frames_BTHWC):
        moved_Sd = displacements(frames_THWC[None])[0]
        torch.testing.assert_close(observed["next_Md"][row], moved_Sd, atol=0.01, rtol=0)
        for s in range(FRAMES - 1):
            gray_HW = frames_THWC[s].float().mean(-1)
            coarse_HW = gray_HW.unflatten(0, (-1, COARSE)).unflatten(2, (-1, COARSE)).mean((1, 3)).round()
            assert (observed["coarse_MHW"][row, s].float() - coarse_HW).abs().max() <= 1, "half a gray value, rounded"
            for age in range(REMEMBERED):
                wanted = moved_Sd[s - 1 - age] if s > age else torch.zeros(2)
                torch.testing.assert_close(observed["past_MRd"][row, s, age], wanted, atol=0.01, rtol=0)


def test_one_frame_has_not_moved(frames_BTHWC):
    assert measure(frames_BTHWC[:, :1]).shape == (BATCH, 0, 2)
    assert look(frames_BTHWC).shape == (BATCH, FRAMES, 64 // COARSE, 64 // COARSE)


def test_the_past_is_cut_short():
    past_MRd = torch.ones(4000, REMEMBERED, 2)
    cut_MRd = cut_short(past_MRd)
    known_M = cut_MRd[..., 0].sum(1).long()
    assert torch.equal(cut_MRd, (torch.arange(REMEMBERED) < known_M[:, None]).float()[..., None].expand(-1, -1, 2))
    shares = F.one_hot(known_M, REMEMBERED + 1).float().mean(0)
    wanted = torch.tensor([CUT_SHARE / REMEMBERED] * REMEMBERED + [1 - CUT_SHARE])
    torch.testing.assert_close(shares, wanted, atol=0.03, rtol=0)


@pytest.mark.parametrize("count", [1, 3, FRAMES])
def test_what_is_known_grows_frame_by_frame_to_what_all_frames_show(frames_BTHWC, count):
    grown, whole = RecentMotion.of(frames_BTHWC[:, :1]), RecentMotion.of(frames_BTHWC[:, :count])
    for t in range(1, count):
        grown = grown.then(frames_BTHWC[:, t])
    assert torch.equal(grown.frame_BHWC, whole.frame_BHWC)
    torch.testing.assert_close(grown.moved_BRd, whole.moved_BRd, atol=0.01, rtol=0)
    observed = observe_motion(frames_BTHWC)["past_MRd"]
    if count < FRAMES:
        torch.testing.assert_close(whole.moved_BRd, observed[:, count - 1].flip(1), atol=0.01, rtol=0)


@pytest.mark.parametrize("size", LARGER_SIZES)
def test_larger_frames_are_observed_at_the_measured_size(frames_BTHWC, size):
    large_BTHWC = torch.from_numpy(enlarged(frames_BTHWC.numpy(), size))
    observed, small = observe_motion(large_BTHWC), observe_motion(at_measured_size(large_BTHWC))
    assert all(torch.equal(observed[name], small[name]) for name in small)
    far_BSd = (observed["next_Md"] - observe_motion(frames_BTHWC)["next_Md"]).abs()
    assert far_BSd.median() < 0.1, "displacements are in pixels of 64x64"
    motion = RecentMotion.of(large_BTHWC[:, :3]).then(large_BTHWC[:, 3])
    assert torch.equal(motion.frame_BHWC, large_BTHWC[:, 3])
    whole = RecentMotion.of(at_measured_size(large_BTHWC[:, :4]))
    torch.testing.assert_close(motion.moved_BRd, whole.moved_BRd, atol=0.01, rtol=0)

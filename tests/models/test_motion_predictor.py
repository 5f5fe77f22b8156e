import pytest
import torch
import torch.nn.functional as F

from genie.models.motion_predictor import (
    COARSE,
    CUT_SHARE,
    REMEMBERED,
    MotionPredictor,
    MotionPredictorConfig,
    look,
    measure,
)
from genie.models.registration import displacements

ACTIONS, BATCH, FRAMES = 3, 2, 7


@pytest.fixture
def predictor():
    torch.manual_seed(0)
    return MotionPredictor(MotionPredictorConfig(ACTIONS))


@pytest.fixture
def frames_BTHWC(coinrun):
    starts = coinrun["val"].episode_starts[:BATCH]
    return torch.stack([torch.from_numpy(coinrun["val"].read(start, start + FRAMES)) for start in starts])


def test_what_actions_do_is_learnt(predictor, frames_BTHWC):
    """The picture scrolls right under action 0, left under action 1 and stays under action 2."""
    before_THWC = frames_BTHWC.flatten(0, 1)
    pairs = torch.cat([torch.stack([before_THWC, before_THWC.roll(by, 2)], 1) for by in (6, -6, 0)])
    batch = {name: part[:, 0] for name, part in predictor.observe(pairs).items()}
    batch["actions_M"] = torch.arange(3).repeat_interleave(len(before_THWC))
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=3e-3)
    for _ in range(60):
        predictor(batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert predictor(batch)[1]["motion_error"] < 0.5
    assert predictor(batch | {"actions_M": (batch["actions_M"] + 1) % 3})[1]["motion_error"] > 4


def test_transitions_are_observed_as_told(predictor, frames_BTHWC):
    """Against the obvious: frame by frame, and the past counted backwards."""
    observed = predictor.observe(frames_BTHWC)
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


def test_the_past_is_cut_short_in_training_alone(predictor):
    past_MRd = torch.ones(4000, REMEMBERED, 2)
    assert torch.equal(predictor.eval()._cut_short(past_MRd), past_MRd)
    cut_MRd = predictor.train()._cut_short(past_MRd)
    known_M = cut_MRd[..., 0].sum(1).long()
    assert torch.equal(cut_MRd, (torch.arange(REMEMBERED) < known_M[:, None]).float()[..., None].expand(-1, -1, 2))
    shares = F.one_hot(known_M, REMEMBERED + 1).float().mean(0)
    wanted = torch.tensor([CUT_SHARE / REMEMBERED] * REMEMBERED + [1 - CUT_SHARE])
    torch.testing.assert_close(shares, wanted, atol=0.03, rtol=0)

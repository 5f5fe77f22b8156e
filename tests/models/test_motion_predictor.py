import pytest
import torch

from genie.models.motion_predictor import MotionPredictor, MotionPredictorConfig

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

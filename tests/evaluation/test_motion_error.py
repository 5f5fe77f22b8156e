import numpy as np
import pytest
import torch

from genie.data.transitions import TransitionWindows
from genie.data.windows import WindowError
from genie.evaluation.motion_error import evaluate_motion
from genie.models.motion_predictor import MotionPredictor, MotionPredictorConfig
from genie.models.recent_motion import PIXELS


@pytest.fixture
def predictor():
    """A predictor that always predicts eight pixels to the right."""
    predictor = MotionPredictor(MotionPredictorConfig(3)).eval()
    with torch.no_grad():
        predictor.layers[-1].bias.copy_(torch.tensor([8.0, 0.0]) / PIXELS)
    return predictor


def test_errors_are_mean_distances(predictor, coinrun):
    store = coinrun["val"]
    windows = TransitionWindows(predictor, store, 16, 0, 3, labels={"actions_M": np.zeros(store.num_frames)})
    batches = [windows[step] for step in range(3)]
    next_Md = torch.cat([batch["next_Md"] for batch in batches])
    last_Md = torch.cat([batch["past_MRd"][:, 0] for batch in batches])
    wanted = {
        "motion_error": (next_Md - torch.tensor([8.0, 0.0])).norm(dim=1).mean(),
        "motion_error_as_before": (next_Md - last_Md).norm(dim=1).mean(),
        "motion_error_copy_last": next_Md.norm(dim=1).mean(),
    }
    assert evaluate_motion(predictor, windows) == pytest.approx(
        {name: float(v) for name, v in wanted.items()}, rel=1e-4
    )


def test_actions_of_other_frames_are_a_fault(predictor, coinrun):
    with pytest.raises(WindowError, match=r"\d+ frames but 5 labels actions_M; run `dvc repro`"):
        TransitionWindows(predictor, coinrun["val"], 4, 0, 3, labels={"actions_M": np.zeros(5)})

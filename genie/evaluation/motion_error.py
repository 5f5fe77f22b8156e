"""Error of the motion predictor on the next displacement of the picture."""

import torch

from genie.core.protocols import Validation
from genie.data.transitions import TransitionWindows
from genie.models.motion_predictor import MotionPredictor


@torch.no_grad()
def evaluate_motion(model: MotionPredictor, transitions: TransitionWindows) -> dict[str, float]:
    """Measures the predictor and two baselines that need no action.

    Args:
        model: the motion predictor.
        transitions: held-out transitions; all of their batches are measured.

    Returns:
        Mean distances from the measured displacement, in pixels: `motion_error` of the predicted displacement,
        `motion_error_as_before` of the previous one, `motion_error_copy_last` of zero displacement, a static picture.
    """
    device, totals = next(model.parameters()).device, torch.zeros(3)
    for step in range(len(transitions)):
        batch = {name: part.to(device) for name, part in transitions[step].items()}
        next_Md, past_MRd = batch["next_Md"], batch["past_MRd"]
        predicted_Md = model.predict(batch["coarse_MHW"], past_MRd, batch["actions_M"])
        guesses = predicted_Md, past_MRd[:, 0], torch.zeros_like(next_Md)
        totals += torch.stack([(next_Md - guess_Md).norm(dim=-1).mean() for guess_Md in guesses]).cpu()
    names = ("motion_error", "motion_error_as_before", "motion_error_copy_last")
    return dict(zip(names, (totals / len(transitions)).tolist(), strict=True))


def validate_motion(transitions: TransitionWindows) -> Validation:
    """Builds the training loop's validation: all metrics of `evaluate_motion`."""

    def validate(model: MotionPredictor, step: int) -> dict[str, float]:
        return evaluate_motion(model, transitions)

    return validate

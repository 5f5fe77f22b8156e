"""Accuracy of the steering model: how well it predicts the latent action that an arrow should press."""

import math

import torch

from genie.core.protocols import Validation
from genie.data.transitions import TransitionWindows
from genie.models.steering import Steering


@torch.no_grad()
def evaluate_arrows(model: Steering, transitions: TransitionWindows) -> dict[str, float]:
    """Measures the steering model and baselines with less information.

    Args:
        model: the steering model.
        transitions: held-out transitions; all of their batches are measured.

    Returns:
        Bits needed to encode a latent action: `arrow_bits` given the past and the effective action,
        `arrow_bits_effect_alone` given the effective action only, `arrow_bits_chance` given nothing. The latter two use
        the measured frequencies themselves, so no predictor with the same information does better.
        `arrow_accuracy`, the share of transitions whose latent action is the most likely one, and
        `arrow_accuracy_effect_alone`.
    """
    device, totals = next(model.parameters()).device, torch.zeros(2, dtype=torch.float64)
    met_EA = torch.zeros(model.config.num_effects, model.config.num_actions, dtype=torch.float64)
    for step in range(len(transitions)):
        batch = {name: part.to(device) for name, part in transitions[step].items()}
        _, told = model.eval()(batch)
        totals += torch.stack([told["cross_entropy"], told["accuracy"]]).double().cpu()
        places = (batch["effects_M"].cpu(), batch["actions_M"].cpu())
        met_EA.index_put_(places, torch.ones(len(places[0]), dtype=torch.float64), accumulate=True)
    nats, accuracy = (totals / len(transitions)).tolist()
    share_EA = met_EA / met_EA.sum()
    share_E, share_A = share_EA.sum(1), share_EA.sum(0)
    return {
        "arrow_bits": nats / math.log(2),
        "arrow_bits_effect_alone": _bits(share_EA.flatten()) - _bits(share_E),
        "arrow_bits_chance": _bits(share_A),
        "arrow_accuracy": accuracy,
        "arrow_accuracy_effect_alone": float(share_EA.amax(1).sum()),
    }


def validate_arrows(transitions: TransitionWindows) -> Validation:
    """Builds the training loop's validation: all metrics of `evaluate_arrows`."""

    def validate(model: Steering, step: int) -> dict[str, float]:
        return evaluate_arrows(model, transitions)

    return validate


def _bits(shares: torch.Tensor) -> float:
    """Entropy in bits."""
    return float(-torch.xlogy(shares, shares).sum() / math.log(2))

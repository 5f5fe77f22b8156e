"""Accuracy of the dynamics in predicting the next frame's tokens."""

import numpy as np
import torch

from genie.core.protocols import Validation
from genie.data.windows import TokenArray, episode_starts_of, spread_starts, window_starts
from genie.models.chunks import rows_at_once
from genie.models.dynamics import Dynamics

NUM_VALIDATION_WINDOWS = 64
WINDOWS = 16  # at once on a CPU


@torch.no_grad()
def evaluate_dynamics(
    model: Dynamics, tokens: TokenArray, latent_actions: np.ndarray, num_windows: int, batch_size: int | None = None
) -> dict[str, float]:
    """Measures the prediction of fully masked frames from at most C clean frames before them and the latent action.

    Args:
        model: the dynamics.
        tokens: `(num_frames, N)` tokens of a split.
        latent_actions: `(num_frames,)` latent actions of the split.
        num_windows: maximum number of windows, spread over the split.
        batch_size: windows per batch; None: as many as suit the device.

    Returns:
        `cross_entropy` (nats per token) and `token_accuracy`.
    """
    device, length = next(model.parameters()).device, model.config.context_frames + 1
    batch_size = batch_size or rows_at_once(device, WINDOWS, frames=2 * length)  # clean and masked ones
    starts = window_starts(episode_starts_of(latent_actions), len(tokens), length)
    starts = spread_starts(starts, num_windows)
    totals = {}
    for rows in np.split(starts, range(batch_size, len(starts), batch_size)):
        frames = rows[:, None] + np.arange(length)
        batch = {
            "tokens_BTN": torch.from_numpy(tokens[frames].astype(np.int64)).to(device),
            "actions_BS": torch.from_numpy(latent_actions[frames[:, :-1]].astype(np.int64)).to(device),
        }
        for name, value in model(batch)[1].items():
            totals[name] = totals.get(name, 0.0) + value.item() * len(rows)
    return {name: total / len(starts) for name, total in totals.items()}


def validate_dynamics(tokens: TokenArray, latent_actions: np.ndarray) -> Validation:
    """Builds the training loop's validation: all metrics of `evaluate_dynamics`, on a few windows."""

    def validate(model: Dynamics, step: int) -> dict[str, float]:
        return evaluate_dynamics(model, tokens, latent_actions, NUM_VALIDATION_WINDOWS)

    return validate

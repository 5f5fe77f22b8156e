"""Accuracy of the probe in reading true actions off frames: the ceiling of the latent actions' `action_nmi`."""

import numpy as np
import torch

from genie.core.protocols import Validation
from genie.data.episodes import EpisodeStore
from genie.data.true_actions import read_labelled_windows
from genie.data.windows import spread_starts, window_starts
from genie.distributed.progress import progress
from genie.evaluation.metrics import normalised_mutual_information
from genie.models.chunks import rows_at_once
from genie.models.probe import ActionProbe

NUM_VALIDATION_WINDOWS = 512
WINDOWS = 32  # at once on a CPU


@torch.no_grad()
def evaluate_probe(
    probe: ActionProbe,
    store: EpisodeStore,
    *,
    window: int,
    num_windows: int,
    history: int | None = None,
    batch_size: int | None = None,
) -> dict[str, float]:
    """Measures how well the probe predicts the effective actions of windows spread over a split.

    With the same store, window, number of windows and history, `evaluate_lam` measures the same transitions.

    Args:
        probe: the probe.
        store: a split.
        window: frames per window, more than the probe's history; the first frames serve as history only.
        num_windows: maximum number of windows.
        history: number of frames that a transition needs as history to count in `action_nmi`; None means the probe's.
        batch_size: windows per batch; None: as many as suit the device.

    Returns:
        `accuracy`, `cross_entropy` (nats) and `action_nmi`, the normalised mutual information of the predicted
        actions with the true ones.
    """
    device = next(probe.parameters()).device
    probe.eval()
    batch_size = batch_size or rows_at_once(device, WINDOWS, frames=window)
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, window), num_windows)
    actions, told, true, totals = store.actions(), [], [], {"accuracy": 0.0, "cross_entropy": 0.0}
    for first in progress(range(0, len(starts), batch_size), name="evaluate probe", unit="batch"):
        rows = starts[first : first + batch_size]
        batch = read_labelled_windows(store, actions, rows, window)
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        _, metrics = probe(batch)
        for name in totals:
            totals[name] += metrics[name].item() * len(rows) / len(starts)
        whole = slice((history or probe.history) - 1, None)
        told.append(probe.infer_actions(batch["frames_BTHWC"])[:, whole].cpu().numpy())
        true.append(batch["actions_BS"][:, whole].cpu().numpy())
    nmi = normalised_mutual_information(np.concatenate(told).ravel(), np.concatenate(true).ravel())
    return totals | {"action_nmi": nmi}


def validate_probe(store: EpisodeStore, window: int) -> Validation:
    """Builds the training loop's validation: all metrics of `evaluate_probe`, on a few windows."""

    def validate(model: ActionProbe, step: int) -> dict[str, float]:
        return evaluate_probe(model, store, window=window, num_windows=NUM_VALIDATION_WINDOWS)

    return validate

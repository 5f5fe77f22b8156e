"""How much of the true actions the frames tell: the ceiling of the latent actions' `action_nmi`."""

import numpy as np
import torch

from genie.core.protocols import Validation
from genie.data.episodes import EpisodeStore
from genie.data.true_actions import read_labelled_windows
from genie.data.windows import spread_starts, window_starts
from genie.distributed.progress import progress
from genie.evaluation.metrics import normalised_mutual_information
from genie.models.probe import ActionProbe

NUM_VALIDATION_WINDOWS = 512


@torch.no_grad()
def evaluate_probe(
    probe: ActionProbe,
    store: EpisodeStore,
    *,
    window: int,
    num_windows: int,
    history: int | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """How well the probe tells the effective actions of windows spread over a split.

    Of the same store, window, number of windows and history, `evaluate_lam` measures the same transitions.

    Args:
        probe: the probe.
        store: a split.
        window: frames a window, more than the probe's history; its first ones are but looked at.
        num_windows: at most this many.
        history: frames before a transition, of which `action_nmi` takes those with so many; None: the probe's own.
        batch_size: windows at once.

    Returns:
        `accuracy`, `cross_entropy` (nats) and `action_nmi`, the normalised mutual information of the told actions
        with the true ones.
    """
    device = next(probe.parameters()).device
    probe.eval()
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
    """For the training loop: all that `evaluate_probe` measures, on a few windows."""

    def validate(model: ActionProbe, step: int) -> dict[str, float]:
        return evaluate_probe(model, store, window=window, num_windows=NUM_VALIDATION_WINDOWS)

    return validate

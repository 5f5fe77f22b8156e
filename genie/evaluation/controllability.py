"""Metrics of the latent action model: code usage, agreement with true actions, effect on its predictions."""

import math

import numpy as np
import torch

from genie.core.actions import NO_ACTION
from genie.core.frames import psnr
from genie.core.motion import is_moving
from genie.core.protocols import Validation
from genie.data.episodes import EpisodeStore
from genie.data.windows import read_windows, spread_starts, window_starts
from genie.distributed.progress import progress
from genie.evaluation.metrics import (
    codebook_metrics,
    count_codes,
    frame_mse,
    min_code_share,
    normalised_mutual_information,
)
from genie.models.chunks import rows_at_once
from genie.models.lam import LatentActionModel, PixelLam, SurpriseLam
from genie.models.measured_size import at_measured_size
from genie.models.surprise_lam import information

NUM_VALIDATION_TRANSITIONS = 512
WINDOWS = 32  # at once on a CPU


def action_table(latent_actions: np.ndarray, actions: np.ndarray, num_actions: int, num_effects: int) -> np.ndarray:
    """Counts how often each latent action co-occurs with each true action.

    Args:
        latent_actions: `(N,)` latent actions.
        actions: `(N,)` true actions of the same transitions; transitions without an action are ignored.
        num_actions: A.
        num_effects: E, number of true actions.

    Returns:
        Counts `(A, E)` int64.
    """
    taken = actions != NO_ACTION
    pairs = latent_actions[taken].astype(np.int64) * num_effects + actions[taken]
    return count_codes(pairs, num_actions * num_effects).reshape(num_actions, -1)


def action_nmi(latent_actions: np.ndarray, actions: np.ndarray) -> float:
    """Normalised mutual information, in [0, 1], of latent and true actions, both `(N,)`."""
    taken = actions != NO_ACTION
    return normalised_mutual_information(latent_actions[taken], actions[taken])


def evaluate_lam(
    lam: LatentActionModel,
    store: EpisodeStore,
    *,
    window: int,
    num_windows: int,
    seed: int,
    batch_size: int | None = None,
) -> dict[str, float]:
    """Infers the actions of windows spread over a split, and measures them and their effect on predictions.

    Only transitions whose whole history is in the window count, as in training.

    Args:
        lam: the latent action model.
        store: the split.
        window: frames per window, more than the model's history.
        num_windows: maximum number of windows.
        seed: seed of the random actions.
        batch_size: windows per batch; None: as many as suit the device.

    Returns:
        `action_nmi`, where the true actions are known; `codebook_usage`, `codebook_perplexity` and `min_code_share` of
        the inferred actions; and the metrics of `_Drawing` for kind `pixels`, or of `_Information` for kind `surprise`.

    Raises:
        ValueError: if the kind is `pixels` and nothing moves in any window.
    """
    device, whole = next(lam.parameters()).device, slice(lam.history - 1, None)
    lam.eval()
    batch_size = batch_size or rows_at_once(device, WINDOWS, frames=window)
    starts = spread_starts(window_starts(store.episode_starts, store.num_frames, window), num_windows)
    kind = (
        _Information(lam)
        if isinstance(lam, SurpriseLam)
        else _Drawing(lam, (len(starts), window - 1), seed, store.moving_share)
    )
    inferred = []
    for first in progress(range(0, len(starts), batch_size), name="evaluate LAM", unit="batch"):
        rows = slice(first, first + batch_size)
        frames_BTHWC = torch.from_numpy(read_windows(store, starts[rows], window)).to(device)
        inferred.append(kind.add(frames_BTHWC, rows)[:, whole].cpu().numpy())
    inferred = np.concatenate(inferred)
    metrics = kind.metrics()
    if store.action_names:
        true_actions = store.actions()[starts[:, None] + np.arange(window - 1)[whole]]
        metrics["action_nmi"] = action_nmi(inferred.ravel(), true_actions.ravel())
    return metrics | {
        "min_code_share": min_code_share(count_codes(inferred, lam.num_actions)),
        **codebook_metrics(inferred, lam.num_actions),
    }


class _Drawing:
    """Metrics of kind `pixels`: how well the decoder draws each next frame, at the measured size, from the inferred
    action.

    The baselines draw it from uniformly random actions (`_random_action`) or copy the previous frame (`_copy_last`).
    """

    def __init__(self, lam: PixelLam, shape: tuple[int, int], seed: int, moving_share: float):
        self._moving_share = moving_share
        self._lam, self._whole = lam, slice(lam.history - 1, None)
        self._random_actions = np.random.default_rng(seed).integers(lam.num_actions, size=shape)
        self._mse = {"psnr": [], "psnr_random_action": [], "psnr_copy_last": []}
        self._moving = []

    def add(self, frames_BTHWC: torch.Tensor, rows: slice) -> torch.Tensor:
        """Measures a batch of windows, which are `rows` of all windows; returns their inferred actions."""
        frames_BTHWC = at_measured_size(frames_BTHWC)
        before_BSHWC, after_BSHWC = frames_BTHWC[:, :-1], frames_BTHWC[:, 1:]
        actions_BS = self._lam.infer_actions(frames_BTHWC)
        random_BS = torch.from_numpy(self._random_actions[rows]).to(frames_BTHWC.device)
        predictions = {
            "psnr": self._lam.predict_next(frames_BTHWC, actions_BS),
            "psnr_random_action": self._lam.predict_next(frames_BTHWC, random_BS),
            "psnr_copy_last": before_BSHWC,
        }
        for name, predicted_BSHWC in predictions.items():
            self._mse[name].append(frame_mse(predicted_BSHWC, after_BSHWC)[:, self._whole])
        moving_BS = is_moving(before_BSHWC.cpu().numpy(), after_BSHWC.cpu().numpy(), self._moving_share)
        self._moving.append(moving_BS[:, self._whole])
        return actions_BS

    def metrics(self) -> dict[str, float]:
        """Returns `psnr`, `psnr_random_action`, `psnr_copy_last` in dB; also as `..._moving`, of moving transitions."""
        moving, metrics = np.concatenate(self._moving), {}
        for name, errors in self._mse.items():
            errors_MS = np.concatenate(errors)
            metrics |= {name: psnr(errors_MS), f"{name}_moving": psnr(errors_MS[moving])}
        return metrics


class _Information:
    """Metrics of kind `surprise`: bits that actions give about the next motion, beyond the past."""

    def __init__(self, lam: SurpriseLam):
        self._lam, self._whole = lam, slice(lam.history - 1, None)
        self._actions, self._likelihoods = [], []

    def add(self, frames_BTHWC: torch.Tensor, rows: slice) -> torch.Tensor:
        """Measures a batch of windows; returns their inferred actions."""
        actions_BS, likelihood_BSA = self._lam.judge(frames_BTHWC)
        self._actions.append(actions_BS[:, self._whole].flatten())
        self._likelihoods.append(likelihood_BSA[:, self._whole].flatten(0, 1))
        return actions_BS

    def metrics(self) -> dict[str, float]:
        """Returns `information`, in bits."""
        return {"information": float(information(torch.cat(self._likelihoods), torch.cat(self._actions)))}


def validate_lam(store: EpisodeStore, window: int) -> Validation:
    """Builds the training loop's validation: all metrics of `evaluate_lam`, on a few windows."""

    def validate(model: LatentActionModel, step: int) -> dict[str, float]:
        num_windows = math.ceil(NUM_VALIDATION_TRANSITIONS / (window - model.history))
        return evaluate_lam(model, store, window=window, num_windows=num_windows, seed=0)

    return validate

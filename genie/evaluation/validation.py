"""What is measured and shown of a model while it trains, on a sample of the validation split.

Each function takes the split and returns what the training loop calls: `(model, step) -> metrics`.
"""

from collections.abc import Callable

import numpy as np
import torch

from genie.data.episodes import EpisodeStore
from genie.data.windows import read_windows, spread_starts
from genie.evaluation.controllability import evaluate_lam
from genie.evaluation.metrics import codebook_metrics, frame_mse, psnr
from genie.evaluation.pictures import reconstruction_sheet
from genie.evaluation.prediction import evaluate_dynamics
from genie.models.dynamics import Dynamics
from genie.models.lam import LatentActionModel
from genie.models.tokenizer import Tokenizer
from genie.training.tracking import Tracker

Validation = Callable[[torch.nn.Module, int], dict[str, float]]
NUM_FRAMES = 256
NUM_WINDOWS = 64
NUM_SHOWN = 10


def validate_tokenizer(store: EpisodeStore, tracker: Tracker) -> Validation:
    """Measures `psnr`, `codebook_usage` and `codebook_perplexity`; shows reconstructions."""
    starts = spread_starts(np.arange(store.num_frames), NUM_FRAMES)
    frames_BHWC = torch.from_numpy(read_windows(store, starts, 1)[:, 0])

    def validate(model: Tokenizer, step: int) -> dict[str, float]:
        frames = frames_BHWC.to(next(model.parameters()).device)
        tokens_BN = model.encode(frames)
        decoded_BHWC = model.decode(tokens_BN)
        pictures = [x[:: NUM_FRAMES // NUM_SHOWN][:NUM_SHOWN].cpu().numpy() for x in (frames, decoded_BHWC)]
        tracker.log_image("reconstructions", reconstruction_sheet(*pictures), step)
        return {
            "psnr": psnr(frame_mse(decoded_BHWC, frames)),
            **codebook_metrics(tokens_BN.cpu(), model.num_codes),
        }

    return validate


def validate_lam(store: EpisodeStore) -> Validation:
    """Measures all that `evaluate_lam` does, on a few windows."""

    def validate(model: LatentActionModel, step: int) -> dict[str, float]:
        return evaluate_lam(model, store, window=model.config.window, num_windows=NUM_WINDOWS, seed=0)

    return validate


def validate_dynamics(tokens: np.ndarray, latent_actions: np.ndarray) -> Validation:
    """Measures all that `evaluate_dynamics` does, on a few windows."""

    def validate(model: Dynamics, step: int) -> dict[str, float]:
        return evaluate_dynamics(model, tokens, latent_actions, NUM_WINDOWS)

    return validate

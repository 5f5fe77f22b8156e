"""Reconstruction quality of the tokenizer on held-out frames: an upper bound for dreams made of its tokens."""

import numpy as np
import torch

from genie.core.frames import psnr
from genie.core.protocols import Tracker, Validation
from genie.data.episodes import EpisodeStore
from genie.data.read_ahead import read_ahead
from genie.data.windows import read_windows, spread_starts
from genie.distributed.progress import progress
from genie.evaluation.metrics import codebook_metrics, frame_mse, frame_ssim
from genie.evaluation.pictures import reconstruction_sheet
from genie.models.chunks import rows_at_once
from genie.models.tokenizer import Tokenizer

FRAMES_AT_ONCE = 64  # on a CPU
NUM_VALIDATION_FRAMES, NUM_SHOWN = 256, 10


def evaluate_tokenizer(tokenizer: Tokenizer, store: EpisodeStore, batch_size: int | None = None) -> dict[str, float]:
    """Measures how well the tokenizer reconstructs every frame of a split.

    Args:
        tokenizer: the tokenizer.
        store: the split.
        batch_size: frames per batch; None: as many as suit the device.

    Returns:
        `mse` (pixels in [0, 1]), `psnr` (dB), `ssim`, `codebook_usage` and `codebook_perplexity`.
    """
    device = next(tokenizer.parameters()).device
    tokenizer.eval()
    batch_size = batch_size or rows_at_once(device, FRAMES_AT_ONCE)
    mse, ssim, tokens = [], [], []
    spans = [(start, min(start + batch_size, store.num_frames)) for start in range(0, store.num_frames, batch_size)]
    batches = read_ahead(store.read, spans, device)
    for frames_BHWC in progress(batches, name="evaluate tokenizer", total=len(spans), unit="batch"):
        tokens_BN = tokenizer.encode(frames_BHWC)
        decoded_BHWC = tokenizer.decode(tokens_BN)
        mse.append(frame_mse(decoded_BHWC, frames_BHWC))
        ssim.append(frame_ssim(decoded_BHWC, frames_BHWC))
        tokens.append(tokens_BN.cpu().numpy())
    mse = np.concatenate(mse)
    return {
        "psnr": psnr(mse),
        "mse": float(np.mean(mse)),
        "ssim": float(np.mean(np.concatenate(ssim))),
        **codebook_metrics(np.concatenate(tokens), tokenizer.num_codes),
    }


def validate_tokenizer(store: EpisodeStore, tracker: Tracker) -> Validation:
    """Builds the training loop's validation, on a few frames: `psnr`, codebook metrics and logged reconstructions."""
    starts = spread_starts(np.arange(store.num_frames), NUM_VALIDATION_FRAMES)
    frames_BHWC = torch.from_numpy(read_windows(store, starts, 1)[:, 0])

    def validate(model: Tokenizer, step: int) -> dict[str, float]:
        frames = frames_BHWC.to(next(model.parameters()).device)
        tokens_BN = model.encode(frames)
        decoded_BHWC = model.decode(tokens_BN)
        pictures = [x[:: NUM_VALIDATION_FRAMES // NUM_SHOWN][:NUM_SHOWN].cpu().numpy() for x in (frames, decoded_BHWC)]
        tracker.log_image("reconstructions", reconstruction_sheet(*pictures), step)
        return {
            "psnr": psnr(frame_mse(decoded_BHWC, frames)),
            **codebook_metrics(tokens_BN.cpu(), model.num_codes),
        }

    return validate

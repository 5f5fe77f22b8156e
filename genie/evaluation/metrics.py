"""Metrics as pure functions: frame similarity, codebook use and mutual information.

Legend: `...` any leading axes, `H W C` pixels, `K` codes. Frames are uint8 RGB.
"""

import math

import numpy as np
import torch
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from genie.models.chunks import rows_at_once
from genie.models.quantizer import code_statistics

SSIM_FRAMES, SSIM_PIXELS = 64, 64**2  # per batch on a CPU: as many pixels need 2 MB during the comparison


def frame_mse(frames: Tensor, targets: Tensor) -> np.ndarray:
    """Mean squared error of each frame, for pixels in [0, 1].

    `(..., H, W, C)` uint8 twice -> `(...)` float64.
    """
    assert frames.shape == targets.shape, f"{tuple(frames.shape)} against {tuple(targets.shape)}"
    difference = (frames.float() - targets.float()) / 255
    return difference.square().mean(dim=(-3, -2, -1)).double().cpu().numpy()


def frame_ssim(frames: Tensor, targets: Tensor) -> np.ndarray:
    """Structural similarity of each frame, in [-1, 1] (Gaussian window of 11 pixels, mean over the channels).

    `(..., H, W, C)` uint8 twice -> `(...)` float64.
    """
    size = max(1, math.prod(frames.shape[-3:-1]) // SSIM_PIXELS)
    batch_size = rows_at_once(frames.device, max(1, SSIM_FRAMES // size), frames=size)
    planes = [x.movedim(-1, -3).flatten(0, -4).split(batch_size) for x in (frames, targets)]
    # The variances are small differences of large numbers: in half precision they would be noise.
    with torch.autocast(frames.device.type, enabled=False):
        ssim = [
            structural_similarity_index_measure(x / 255, y / 255, data_range=1.0, reduction="none")
            for x, y in zip(*planes, strict=True)
        ]
    return torch.cat(ssim).double().cpu().numpy().reshape(frames.shape[:-3])  # pyright: ignore[reportArgumentType]


def count_codes(codes: np.ndarray, num_codes: int) -> np.ndarray:
    """Counts each code in an array of integers in [0, K), of any shape: `(K,)` int64."""
    counts = np.bincount(np.ravel(codes), minlength=num_codes)
    assert len(counts) == num_codes, f"code {len(counts) - 1} of a codebook of {num_codes}"
    return counts


def codebook_metrics(codes: np.ndarray | Tensor, num_codes: int) -> dict[str, float]:
    """Computes `codebook_usage` and `codebook_perplexity`, as in training, of integer codes of any shape."""
    statistics = code_statistics(torch.as_tensor(codes).long(), num_codes)
    return {name: float(value) for name, value in statistics.items()}


def min_code_share(counts: np.ndarray) -> float:
    """Returns the share of the rarest code, in [0, 1 / K]."""
    return float(np.min(counts) / np.sum(counts))


def normalised_mutual_information(labels: np.ndarray, others: np.ndarray) -> float:
    """Normalised mutual information of two labellings of the same items, in [0, 1]; 0 if either is constant.

    It is the mutual information divided by the arithmetic mean of the two entropies.
    """
    if np.ptp(labels) == 0 or np.ptp(others) == 0:
        return 0.0  # scikit-learn returns 1 for two constant labellings
    return float(normalized_mutual_info_score(labels, others))


def mutual_information(labels: np.ndarray, others: np.ndarray) -> float:
    """Mutual information of two labellings of the same items, in bits."""
    return float(mutual_info_score(labels, others) / np.log(2))

"""Pure measures: frames against frames, and what the counts of codes tell.

Legend: `...` any leading axes, `H W C` pixels, `K` codes. Frames are uint8 RGB.
"""

import numpy as np
import torch
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from genie.models.quantizer import code_statistics

SSIM_FRAMES = 64  # at once: each takes 2 MB while it is compared


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
    planes = [x.movedim(-1, -3).flatten(0, -4).split(SSIM_FRAMES) for x in (frames, targets)]
    # In half precision its variances, small differences of large numbers, would be noise.
    with torch.autocast(frames.device.type, enabled=False):
        ssim = [
            structural_similarity_index_measure(x / 255, y / 255, data_range=1.0, reduction="none")
            for x, y in zip(*planes, strict=True)
        ]
    return torch.cat(ssim).double().cpu().numpy().reshape(frames.shape[:-3])


def count_codes(codes: np.ndarray, num_codes: int) -> np.ndarray:
    """How often each code occurs: any shape of integers in [0, K) -> `(K,)` int64."""
    counts = np.bincount(np.ravel(codes), minlength=num_codes)
    assert len(counts) == num_codes, f"code {len(counts) - 1} of a codebook of {num_codes}"
    return counts


def codebook_metrics(codes: np.ndarray, num_codes: int) -> dict[str, float]:
    """`codebook_usage` and `codebook_perplexity` (as in training) of a set's codes, integers of any shape."""
    statistics = code_statistics(torch.as_tensor(codes).long(), num_codes)
    return {name: float(value) for name, value in statistics.items()}


def min_code_share(counts: np.ndarray) -> float:
    """The share of the rarest code, in [0, 1 / K]."""
    return float(np.min(counts) / np.sum(counts))


def normalised_mutual_information(labels: np.ndarray, others: np.ndarray) -> float:
    """What two labellings of the same things tell of each other, in [0, 1]; 0 where either is constant.

    The mutual information over the arithmetic mean of the two entropies.
    """
    if np.ptp(labels) == 0 or np.ptp(others) == 0:
        return 0.0  # scikit-learn calls two constant labellings a perfect match
    return float(normalized_mutual_info_score(labels, others))


def mutual_information(labels: np.ndarray, others: np.ndarray) -> float:
    """What two labellings of the same things tell of each other, in bits."""
    return float(mutual_info_score(labels, others) / np.log(2))

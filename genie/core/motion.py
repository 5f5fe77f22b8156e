"""Detects moving transitions: most of CoinRun's are static, and those are easy to predict."""

import numpy as np

PIXEL_CHANGE = 8  # of 255, in any channel
# Share of the pixels. CoinRun has few transitions between 1% (only an enemy walks) and 10% (the view scrolls).
MOVING_SHARE = 0.1


def changed_share(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Share, in [0, 1], of the pixels that changed by more than `PIXEL_CHANGE` in any channel.

    Args:
        before, after: frames `(..., H, W, C)` uint8; their leading axes are broadcast.

    Returns:
        float64 `(...)`.
    """
    larger, smaller = np.maximum(before, after), np.minimum(before, after)
    return ((larger - smaller) > PIXEL_CHANGE).any(-1).mean((-2, -1))


def is_moving(before: np.ndarray, after: np.ndarray, share: float = MOVING_SHARE) -> np.ndarray:
    """Whether more than a share of the pixels changed visibly: bool `(...)`, of frames `(..., H, W, C)`."""
    return changed_share(before, after) > share

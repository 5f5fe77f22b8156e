"""Which transitions move: most of CoinRun stands still, and standing still is easy to predict."""

import numpy as np

PIXEL_CHANGE = 8  # of 255, in any channel
MOVING_SHARE = 0.1  # CoinRun has few transitions between 1% (only an enemy walks) and 10% (the view scrolls)


def is_moving(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whether more than `MOVING_SHARE` of the pixels changed by more than `PIXEL_CHANGE` in any channel.

    Args:
        before, after: frames `(..., H, W, C)` uint8.

    Returns:
        bool `(...)`.
    """
    larger, smaller = np.maximum(before, after), np.minimum(before, after)
    return ((larger - smaller) > PIXEL_CHANGE).any(-1).mean((-2, -1)) > MOVING_SHARE

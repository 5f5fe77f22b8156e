"""What a frame is outside a model, uint8 RGB of one shape, and how alike frames are."""

import numpy as np

FRAME_SHAPE = (64, 64, 3)
PATCH = 4  # pixels a side of what one token stands for
MIN_MSE = 1e-10  # keeps the PSNR of equal frames finite (100 dB): JSON knows no infinity


def psnr(mse: np.ndarray) -> float:
    """Peak signal-to-noise ratio, in dB, of a whole set of frames: that of the mean of their squared errors.

    The mean over frames of each frame's PSNR would be ruled by the frames that are copied exactly (infinite),
    and most of CoinRun stands still.

    Raises:
        ValueError: the set is empty.
    """
    if np.size(mse) == 0:
        raise ValueError("no frames to measure (none of them moves?): collect or evaluate more frames")
    return float(-10 * np.log10(max(np.mean(mse), MIN_MSE)))

"""Frame format outside the models (uint8 RGB of one shape), and the similarity of frames."""

import numpy as np

FRAME_SHAPE = (64, 64, 3)  # of the simulators; films can also have another of the sizes
FRAME_SIZES = (64, 96, 128)
GRID_SIZE = 16  # tokens a side, whatever the size of a frame
MIN_MSE = 1e-10  # keeps the PSNR of equal frames finite (100 dB), because JSON has no infinity


def psnr(mse: np.ndarray | float) -> float:
    """Peak signal-to-noise ratio, in dB, of a set of frames, computed from the mean of their squared errors.

    Averaging per-frame PSNRs instead would let exactly copied frames (infinite PSNR) dominate, and most of CoinRun
    is static.

    Raises:
        ValueError: the set is empty.
    """
    if np.size(mse) == 0:
        raise ValueError("no frames to measure (none of them moves?): collect or evaluate more frames")
    return float(-10 * np.log10(max(np.mean(mse), MIN_MSE)))

"""Detects cuts: where a film goes on with another scene.

A cut changes the colours of the picture at once; motion and scrolling change them little by little. A frame starts a
new scene if the distance of its colour histogram to the one before is large, and clearly larger than all distances near
it: an explosion, a fast pan or a flash of a frame or two changes the colours several times in a row, and is no cut.

Not found are slow fades, cuts between pictures of the same colours, and cuts that follow each other within
`NEIGHBOURS` frames.

Legend: `N` frames, `H W C` pixels.
"""

import numpy as np

BINS = 16  # of each channel
MIN_DISTANCE = 0.25  # of 1, which is the distance of pictures that share no colour
MIN_RATIO = 1.5  # to the largest of the distances near it
NEIGHBOURS = 4  # on each side


def histogram(frame_HWC: np.ndarray) -> np.ndarray:
    """Shares of the colours in a uint8 frame: `(C, BINS)`, which add up to 1."""
    num_channels = frame_HWC.shape[-1]
    numbers = frame_HWC // (256 // BINS) + np.arange(num_channels, dtype=np.uint8) * BINS
    counts = np.bincount(numbers.ravel(), minlength=num_channels * BINS)
    return counts.reshape(num_channels, BINS) / frame_HWC.size


def histogram_distance(before: np.ndarray, after: np.ndarray) -> float:
    """Half the sum of the differences of two histograms: 0 if they are equal, 1 if they share no colour."""
    return float(np.abs(before - after).sum() / 2)


def find_cuts(distances_N: np.ndarray) -> np.ndarray:
    """Whether each frame starts another scene than the one before: bool `(N,)`, false for the first.

    Args:
        distances_N: histogram distance of each frame to the one before; 0 for the first.
    """
    padded = np.pad(distances_N, NEIGHBOURS)
    shifts = [shift for shift in range(2 * NEIGHBOURS + 1) if shift != NEIGHBOURS]
    nearby_N = np.max([padded[shift : shift + len(distances_N)] for shift in shifts], axis=0)
    return (distances_N >= MIN_DISTANCE) & (distances_N >= MIN_RATIO * nearby_N)

"""The size at which motion and actions are measured, whatever the size of the frames.

What measures them (registration, latent action models, probe, motion predictor, steering) was designed for frames of
64x64: its displacements are in pixels of that size, and its weights do not depend on `collect.frame_size`.
"""

import math

import torch

from genie.core.frames import FRAME_SHAPE, FRAME_SIZES

MEASURED_SIZE = FRAME_SHAPE[:2]  # rows and columns


class FrameSizeError(ValueError):
    """Frames have a size that is not supported; the message names those that are."""


def at_measured_size(frames: torch.Tensor) -> torch.Tensor:
    """Averages uint8 frames `(..., H, W, 3)` over areas, exactly: uint8 `(..., 64, 64, 3)`.

    Sums are computed in integers and halves are rounded up, so all devices return the same.

    Raises:
        FrameSizeError: H and W are not one of `FRAME_SIZES`.
    """
    height, width = frames.shape[-3:-1]
    if (height, width) == MEASURED_SIZE:
        return frames
    if height != width or height not in FRAME_SIZES:
        raise FrameSizeError(
            f"frames of {height}x{width} pixels; they must be squares of {', '.join(map(str, FRAME_SIZES))} pixels a "
            "side, as params.yaml: collect.frame_size"
        )
    shared = math.gcd(height, MEASURED_SIZE[0])
    pixels, areas = height // shared, MEASURED_SIZE[0] // shared  # as many pixels make as many areas: 3 make 2
    sums = _sums(_sums(frames.to(torch.int16), -3, pixels, areas), -2, pixels, areas)
    return ((2 * sums + pixels**2) // (2 * pixels**2)).to(torch.uint8)


def _sums(frames: torch.Tensor, axis: int, pixels: int, areas: int) -> torch.Tensor:
    """Sums along an axis, counted from the end, over areas into which each group of `pixels` pixels is divided; a
    pixel counts `areas` times in all."""
    group = frames.unflatten(axis, (-1, pixels)).unbind(axis)
    parts = [group[part // areas] for part in range(pixels * areas)]  # each pixel in equal parts
    summed = [sum(parts[first + 1 : first + pixels], parts[first]) for first in range(0, len(parts), pixels)]
    return torch.stack(summed, dim=axis).flatten(axis - 1, axis)

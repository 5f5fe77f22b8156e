"""Frames of the sizes that films can have, made of the simulator's."""

import numpy as np
import torch
import torch.nn.functional as F

LARGER_SIZES = (96, 128)


def enlarged(frames: np.ndarray, size: int) -> np.ndarray:
    """Returns uint8 frames `(..., H, W, 3)` scaled to `size` pixels a side."""
    pixels = torch.from_numpy(frames).flatten(0, -4).movedim(-1, 1).float()
    pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
    scaled = pixels.clamp(0, 255).round().to(torch.uint8).movedim(1, -1)
    return scaled.reshape(*frames.shape[:-3], size, size, 3).numpy()

"""How many rows are computed at once: few enough for a CPU's cache, or enough to fill a GPU."""

from collections.abc import Iterator

import torch

NUMBERS_AT_ONCE = 2**21  # 8 MB of float32
GPU_FRAMES = 2048  # at 2 MB each, which the widest tokenizer and LAM of `scales/` take, 4 GB


def rows_at_once(device: torch.device, on_cpu: int, frames: int = 1) -> int:
    """Number of rows to compute at once without gradients: `on_cpu`, or on other devices `GPU_FRAMES` frames.

    Args:
        on_cpu: that number on a CPU, where more do not fit the cache.
        frames: number of frames per row.
    """
    return on_cpu if device.type == "cpu" else max(1, GPU_FRAMES // frames)


def chunks(*tensors: torch.Tensor, width: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Iterates over chunks of the same rows of each tensor. On a GPU, which does not benefit, all rows are one chunk.

    Args:
        tensors: at least one; all have the same number of rows.
        width: how many numbers are computed per row.
    """
    rows = max(1, NUMBERS_AT_ONCE // width) if tensors[0].device.type == "cpu" else len(tensors[0])
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)

"""Splits tensors into chunks of rows that fit a CPU's cache."""

from collections.abc import Iterator

import torch

NUMBERS_AT_ONCE = 2**21  # 8 MB of float32


def chunks(*tensors: torch.Tensor, width: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Iterates over chunks of the same rows of each tensor. On a GPU, which does not benefit, all rows are one chunk.

    Args:
        tensors: at least one; all have the same number of rows.
        width: how many numbers are computed per row.
    """
    rows = max(1, NUMBERS_AT_ONCE // width) if tensors[0].device.type == "cpu" else len(tensors[0])
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)

"""Work on many rows, in parts that a CPU's cache holds."""

from collections.abc import Iterator

import torch

NUMBERS_AT_ONCE = 2**21  # 8 MB of float32


def chunks(*tensors: torch.Tensor, width: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same rows of each tensor, part after part; of tensors on a GPU, which has no use for it, all at once.

    Args:
        tensors: of as many rows each, at least one.
        width: how many numbers are made of a row while it is worked on.
    """
    rows = max(1, NUMBERS_AT_ONCE // width) if tensors[0].device.type == "cpu" else len(tensors[0])
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)

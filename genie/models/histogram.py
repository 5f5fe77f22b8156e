"""Counts of integer values, without making the host wait for a GPU."""

import torch


def histogram(values: torch.Tensor, num_values: int) -> torch.Tensor:
    """Counts each value of an integer tensor in [0, num_values), of any shape: `(num_values,)` int64.

    `torch.bincount` gives the same, but first waits for a GPU to learn the largest value.
    """
    flat = values.flatten()
    return flat.new_zeros(num_values, dtype=torch.int64).scatter_add_(0, flat, torch.ones_like(flat))

"""Collectives that make data-parallel training equal to training one process on the whole batch.

Every rank draws random numbers for the whole batch and takes its share: so all generators stay synchronised, and any
number of ranks draws the same numbers as one. Statistics over a batch are summed over ranks. With one process, no
function here communicates.
"""

import torch
from torch import distributed, nn

from genie.distributed.processes import num_processes, rank


def num_ranks() -> int:
    """Number of processes that share each batch: all of the stage's once they have formed a group, else 1."""
    return num_processes() if distributed.is_initialized() else 1


def my_share(whole: torch.Tensor) -> torch.Tensor:
    """This rank's contiguous rows of a tensor that was drawn for the batch of all ranks."""
    if num_ranks() == 1:
        return whole
    return whole.chunk(num_ranks())[rank()]


def sum_over_ranks(*tensors: torch.Tensor) -> None:
    """Sums tensors over all ranks, in place."""
    if num_ranks() > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor)


def share_of_ranks(count: torch.Tensor) -> torch.Tensor:
    """A count divided by the mean count of all ranks: the weight of this rank's mean in the average over ranks."""
    total = count.clone()
    sum_over_ranks(total)
    return count * num_ranks() / total


def rows_of_all_ranks(rows_MD: torch.Tensor, indices_K: torch.Tensor) -> torch.Tensor:
    """Rows `(K, D)` by their indices in the batch of all ranks, each of which holds `M` rows."""
    if num_ranks() == 1:
        return rows_MD[indices_K]
    owner_K, own_index_K = indices_K // len(rows_MD), indices_K % len(rows_MD)
    is_mine_K1 = (owner_K == rank()).unsqueeze(1)
    found_KD = torch.where(is_mine_K1, rows_MD[own_index_K], 0)
    sum_over_ranks(found_KD)
    return found_KD


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation over all ranks, which hold equally many rows; torch's `SyncBatchNorm` supports GPUs only."""

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor
    momentum: float

    def forward(self, x_MD: torch.Tensor) -> torch.Tensor:
        """Normalises `(M, D)`."""
        if not self.training or num_ranks() == 1:
            return super().forward(x_MD)
        mean_D = _mean_over_ranks(x_MD.float().mean(0))
        variance_D = _mean_over_ranks((x_MD.float() - mean_D).square().mean(0))
        with torch.no_grad():
            num_rows = len(x_MD) * num_ranks()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_D, self.momentum)
            self.running_var.lerp_(variance_D * (num_rows / (num_rows - 1)), self.momentum)
        return ((x_MD - mean_D) * (variance_D + self.eps).rsqrt()).to(x_MD.dtype)


class _SumOverRanks(torch.autograd.Function):
    """Differentiable `distributed.all_reduce`: gradients are summed too, because every rank's loss uses the sum."""

    @staticmethod
    def forward(ctx, tensor: torch.Tensor) -> torch.Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _mean_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    return _SumOverRanks.apply(tensor) / num_ranks()

import torch

from genie.models.chunks import GPU_FRAMES, rows_at_once
from genie.models.histogram import histogram


def test_a_cpu_computes_few_rows_at_once_and_a_gpu_many():
    assert rows_at_once(torch.device("cpu"), 16, frames=10) == 16
    assert rows_at_once(torch.device("cuda"), 16) == GPU_FRAMES
    assert rows_at_once(torch.device("cuda"), 16, frames=10) == GPU_FRAMES // 10
    assert rows_at_once(torch.device("mps"), 16, frames=2 * GPU_FRAMES) == 1


def test_a_histogram_counts_what_bincount_does():
    codes = torch.randint(7, (5, 100), generator=torch.Generator().manual_seed(0))
    counts_K = histogram(codes, 9)
    assert torch.equal(counts_K, torch.bincount(codes.flatten(), minlength=9))
    assert counts_K.dtype == torch.int64
    assert torch.equal(histogram(codes[:0], 9), torch.zeros(9, dtype=torch.int64))

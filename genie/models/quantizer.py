"""Vector quantizers: map continuous vectors to codes of a finite codebook.

Axes: `...` any leading axes, `D` code width, `K` codes, `M` vectors in a batch, `R` vectors in a chunk, `G` groups of
`J` codes.

Both quantizers share one interface: `forward(z) -> (quantized, codes, loss)`, `lookup(codes) -> vectors`,
`num_codes` and `dim`. Gradients pass straight through the rounding (van den Oord et al. 2017, section 3.2).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from genie.distributed.collectives import num_ranks, rows_of_all_ranks, sum_over_ranks
from genie.models.chunks import chunks
from genie.models.histogram import histogram

GROUPS = 32  # maximum number of groups of codes


class FSQ(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505, section 3.1).

    Each of the D components of a vector is bounded and rounded to one of `levels[d]` values. The codebook is their
    product, so it is not learnt and no code can die for lack of a gradient.

    Args:
        levels: number of values per dimension, each at least 3: with two, one would lie where tanh has no slope.
    """

    levels: torch.Tensor
    radix: torch.Tensor

    def __init__(self, levels: list[int]):
        super().__init__()
        self.dim = len(levels)
        self.num_codes = math.prod(levels)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("radix", torch.tensor([1, *levels[:-1]]).cumprod(0), persistent=False)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantizes `z (..., D)`; returns vectors in [-1, 1] `(..., D)`, codes `(...)` int64 and a loss of 0."""
        bounded = self._bound(z.float())
        rounded = bounded + (bounded.round() - bounded).detach()
        half = self.levels // 2
        codes = ((rounded.detach() + half).long() * self.radix).sum(-1)
        return rounded / half, codes, z.new_zeros(())

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """The vectors in [-1, 1] `(..., D)` of `codes (...)`."""
        digits = codes.unsqueeze(-1) // self.radix % self.levels
        half = self.levels // 2
        return (digits - half) / half

    def _bound(self, z: torch.Tensor) -> torch.Tensor:
        # Even numbers of levels are not symmetric about zero: shift by half a level, keeping 0 -> 0.
        half_width = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        shift = torch.atanh(offset / half_width)
        return torch.tanh(z + shift) * half_width - offset


class VectorQuantizer(nn.Module):
    """Nearest-neighbour codebook of running means of the assigned vectors (VQ-VAE, 1711.00937, appendix A.1).

    Codes with (almost) no assigned vectors are dead: no mean ever moves them again. They are re-drawn from the
    encoder's outputs of the same batch whenever their running share falls below `revive_share / K`.

    Args:
        num_codes: K.
        dim: D.
        commitment_weight: weight of the commitment loss ||z - sg[e]||^2.
        ema_decay: decay of the running counts and sums, in [0, 1).
        revive_share: a code whose running share is below this fraction of a uniform share is re-drawn.
    """

    codebook: torch.Tensor
    running_count: torch.Tensor
    running_sum: torch.Tensor

    def __init__(
        self, num_codes: int, dim: int, commitment_weight: float, ema_decay: float, revive_share: float = 0.05
    ):
        super().__init__()
        self.num_codes = num_codes
        self.dim = dim
        self.commitment_weight = commitment_weight
        self.ema_decay = ema_decay
        self.revive_share = revive_share
        self.register_buffer("codebook", torch.randn(num_codes, dim) / math.sqrt(dim))
        self.register_buffer("running_count", torch.zeros(num_codes))
        self.register_buffer("running_sum", torch.zeros(num_codes, dim))

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Quantizes `z (..., D)`; returns vectors `(..., D)`, codes `(...)` int64 and the commitment loss."""
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            z_MD = z.reshape(-1, self.dim)
            codes = nearest(z_MD.detach(), self.codebook)
            quantized = self.codebook[codes].view_as(z)
            loss = self.commitment_weight * F.mse_loss(z, quantized)
            if self.training:
                self._update(z_MD.detach(), codes)
            return z + (quantized - z).detach(), codes.view(z.shape[:-1]), loss

    def lookup(self, codes: torch.Tensor) -> torch.Tensor:
        """The codebook vectors `(..., D)` of `codes (...)`."""
        return self.codebook[codes]

    @torch.no_grad()
    def _update(self, z_MD: torch.Tensor, codes_M: torch.Tensor) -> None:
        count_K = histogram(codes_M, self.num_codes)
        sum_KD = torch.zeros_like(self.running_sum).index_add_(0, codes_M, z_MD)
        sum_over_ranks(count_K, sum_KD)
        num_vectors = len(z_MD) * num_ranks()
        # Before the first update the running means are empty, so every code counts as dead and is drawn.
        self.running_count.lerp_(count_K / num_vectors, 1 - self.ema_decay)
        self.running_sum.lerp_(sum_KD / num_vectors, 1 - self.ema_decay)
        dead_K = self.running_count < self.revive_share / self.num_codes
        drawn_KD = rows_of_all_ranks(z_MD, torch.randint(num_vectors, (self.num_codes,), device=z_MD.device))
        uniform = torch.full_like(self.running_count, 1 / self.num_codes)
        self.running_count.copy_(torch.where(dead_K, uniform, self.running_count))
        dead_K1 = rearrange(dead_K, "k -> k 1")
        self.running_sum.copy_(torch.where(dead_K1, drawn_KD / self.num_codes, self.running_sum))
        self.codebook.copy_(self.running_sum / rearrange(self.running_count, "k -> k 1"))


def nearest(z_MD: torch.Tensor, codebook_KD: torch.Tensor) -> torch.Tensor:
    """Index of the codebook row nearest to each vector, the first one in a tie: `(M,)` int64."""
    num_codes = len(codebook_KD)
    offset_K = codebook_KD.square().sum(-1)
    found = []
    for (z_RD,) in chunks(z_MD, width=num_codes):
        # Squared distance, without the term that all codes share.
        distance_RK = torch.addmm(offset_K, z_RD, codebook_KD.T, alpha=-2)
        # Find the group first, then the code in it: on a CPU, min is many times faster than argmin.
        distance_RGJ = distance_RK.unflatten(1, (math.gcd(num_codes, GROUPS), -1))
        group_R = distance_RGJ.amin(-1).min(-1).indices
        distance_RJ = distance_RGJ[torch.arange(len(z_RD), device=z_RD.device), group_R]
        found.append(group_R * distance_RJ.shape[1] + distance_RJ.min(-1).indices)
    return torch.cat(found)


def code_statistics(codes: torch.Tensor, num_codes: int) -> dict[str, torch.Tensor]:
    """Codebook health of a batch: `codebook_usage` (share of the K codes that occur) and `codebook_perplexity`
    (exp of the entropy of the codes, in [1, K]), as scalar tensors."""
    share_K = histogram(codes, num_codes) / codes.numel()
    return {
        "codebook_usage": (share_K > 0).float().mean(),
        "codebook_perplexity": torch.special.entr(share_K).sum().exp(),
    }

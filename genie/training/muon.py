"""Muon optimizer: updates each matrix by its orthogonalised momentum (Jordan et al. 2024, "Muon: an optimizer for
hidden layers in neural networks"; scaled as in Liu et al. 2025, arXiv 2502.16982, section 2.2).

torch's own Muon takes only matrices, and most weights here are convolution kernels. Orthogonalising all matrices of one
shape at once also reduces a step of many small matrices from 11 ms to 7 ms (the tokenizer's, on two cores).

Axes: `M` matrices, `O` outputs and `I` inputs of a layer.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch

from genie.distributed.fsdp import shard_like, whole

# Odd polynomial that drives singular values towards one, fast rather than exactly (Jordan et al.).
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
UPDATE_RMS = 0.2  # that of AdamW's updates, so that both share one learning rate (Liu et al.)


class Muon(torch.optim.Optimizer):
    """Muon for the weights of linear and convolutional layers; kernels are treated as matrices `(O, I * k * k)`.

    A few directions dominate a gradient; the orthogonalised update moves equally along all of them. For sharded
    matrices, every process computes the full update.

    Args:
        matrices: parameters with at least two axes.
        lr: learning rate, as for AdamW.
        weight_decay: decoupled, as in AdamW.
        momentum: Nesterov momentum.
        dtype: dtype in which updates are orthogonalised; bfloat16 is precise enough, but takes twenty times as long as
            float32 on a CPU that must emulate it.
    """

    def __init__(
        self,
        matrices: Iterable[torch.Tensor],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Updates all matrices that have a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for matrices in alike.values():
                self._move(matrices, group["lr"], group["weight_decay"], group["momentum"])

    def _move(self, matrices: list[torch.Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["mean"] = torch.zeros_like(matrix)
        means = [self.state[matrix]["mean"] for matrix in matrices]
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]  # the caller leaves out the others
        # As lists, for which a GPU launches a few operations, instead of several for each matrix.
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, means, momentum)
        updates_MOI = orthogonal(torch.stack([whole(direction).flatten(1) for direction in directions]).to(self._dtype))
        scale = UPDATE_RMS * max(updates_MOI.shape[1:]) ** 0.5
        updates = [shard_like(update_OI.view(m.shape), m) for m, update_OI in zip(matrices, updates_MOI, strict=True)]
        torch._foreach_mul_(matrices, 1 - lr * weight_decay)
        torch._foreach_add_(matrices, updates, alpha=-lr * scale)


def orthogonal(matrices_MOI: torch.Tensor) -> torch.Tensor:
    """Nearest matrices `(M, O, I)` with all singular values about one (0.7 to 1.2), by Newton-Schulz iteration."""
    is_tall = matrices_MOI.shape[1] > matrices_MOI.shape[2]
    x = matrices_MOI.mT if is_tall else matrices_MOI
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    # For long matrices, all but two products need only the short side; the Gram matrix squares singular values, which
    # needs float32.
    is_long = x.shape[2] >= 2 * x.shape[1] and x.dtype.itemsize >= 4
    x = _by_gram(x) if is_long else _by_matrix(x)
    return x.mT if is_tall else x


def _by_matrix(x: torch.Tensor) -> torch.Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _by_gram(x: torch.Tensor) -> torch.Tensor:
    """Same as `_by_matrix`, but iterates on the Gram matrix: each polynomial `p` maps it to `p gram p`, and `x` is
    multiplied once by the product of all `p`."""
    a, b, c = COEFFICIENTS
    gram, p, product = x @ x.mT, None, None
    for _ in range(ITERATIONS):
        gram = gram if p is None else p @ gram @ p
        p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        p.diagonal(dim1=-2, dim2=-1).add_(a)
        product = p if product is None else p @ product
    assert product is not None
    return product @ x

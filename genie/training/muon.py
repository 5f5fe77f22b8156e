"""Muon: each matrix moves by its momentum made orthogonal (Jordan et al. 2024, "Muon: an optimizer for hidden layers in
neural networks"; scaled as by Liu et al. 2025, arXiv 2502.16982, section 2.2).

Our own, since torch's takes matrices only, and most weights here are kernels; and since a step of many small matrices
takes 7 ms instead of 11 if those of one shape are made orthogonal at once (the tokenizer's, on two cores).

Axes: `M` matrices, `O` outputs and `I` inputs of a layer.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch

from genie.distributed.fsdp import shard_like, whole

# Odd polynomial that drives singular values towards one, quickly rather than exactly (Jordan et al.).
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
UPDATE_RMS = 0.2  # of AdamW's updates, so that one learning rate suits both (Liu et al.)


class Muon(torch.optim.Optimizer):
    """For the weights of linear and convolutional layers; kernels count as matrices `(O, I * k * k)`.

    Gradients say in which directions a matrix should move, but a few directions drown the others; made orthogonal,
    the update moves along all of them alike. Of sharded matrices each process makes the whole update.

    Args:
        matrices: parameters of two axes or more.
        lr: learning rate, as for AdamW.
        weight_decay: decoupled, as AdamW's.
        momentum: Nesterov's.
        dtype: in which updates are made orthogonal; bfloat16 is precise enough, but a CPU that must emulate it takes
            twenty times as long over it as in float32.
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
        """Moves all matrices that have a gradient."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike[matrix.shape].append(matrix)
            for matrices in alike.values():
                self._move(matrices, group["lr"], group["weight_decay"], group["momentum"])

    def _move(self, matrices: list[torch.Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        directions = []
        for matrix in matrices:
            state = self.state[matrix]
            if not state:
                state["mean"] = torch.zeros_like(matrix)
            mean = state["mean"].lerp_(matrix.grad, 1 - momentum)
            directions.append(whole(matrix.grad.lerp(mean, momentum)).flatten(1))
        updates_MOI = orthogonal(torch.stack(directions).to(self._dtype))
        scale = UPDATE_RMS * max(updates_MOI.shape[1:]) ** 0.5
        for matrix, update_OI in zip(matrices, updates_MOI, strict=True):
            update = shard_like(update_OI.view(matrix.shape), matrix)
            matrix.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * scale)


def orthogonal(matrices_MOI: torch.Tensor) -> torch.Tensor:
    """The nearest matrices `(M, O, I)` whose singular values are all about one (0.7 to 1.2), by Newton-Schulz."""
    is_tall = matrices_MOI.shape[1] > matrices_MOI.shape[2]
    x = matrices_MOI.mT if is_tall else matrices_MOI
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    # Of long matrices all but two products can be of their short sides; squares of singular values need float32.
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
    """The same polynomials, of the Gram matrix alone: each maps it to `p gram p`, and `x` to the product of all `p` by
    `x`."""
    a, b, c = COEFFICIENTS
    gram, p, product = x @ x.mT, None, None
    for _ in range(ITERATIONS):
        gram = gram if p is None else p @ gram @ p
        p = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        p.diagonal(dim1=-2, dim2=-1).add_(a)
        product = p if product is None else p @ product
    return product @ x

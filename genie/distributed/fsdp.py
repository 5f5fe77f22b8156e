"""Fully sharded training (FSDP): each process keeps only its part of every weight, gradient and optimizer moment.

Saved state is unsharded, so that any number of processes can read it, sharded or not. Imports are local, because they
take seconds that evaluation and play do not need to spend.
"""

import warnings
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import nn
from torch.distributed import DeviceMesh
from torch.utils._pytree import tree_map_only


def shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Returns a sharded copy of a model, which must be identical in all processes of the mesh."""
    from torch.distributed.fsdp import fully_shard

    # No model modifies a module's output in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # FSDP requires contiguous memory.
    copied = deepcopy(model).to(mesh.device_type, memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    for part in (*_blocks(copied), copied):
        fully_shard(part, mesh=mesh)
    return copied


def shard_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Shards a tensor, whole in all processes, as `like` if that is sharded and of equal shape; else returns it."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Gathers a tensor if it is sharded; all processes must call it."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(state: Any, *, keep: bool) -> Any:
    """Gathers the sharded tensors of a tree to the CPU; all processes must call it.

    Args:
        state: the tree.
        keep: whether this process keeps them; if not, they become None.
    """

    from torch.distributed.tensor import DTensor

    def gather(tensor: DTensor) -> torch.Tensor | None:
        full = tensor.full_tensor()
        return full.cpu() if keep else None

    return tree_map_only(DTensor, gather, state)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Loads an optimizer state of full tensors, whether the optimizer's parameters are sharded or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        index: {name: shard_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": sharded})


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Modules to shard separately, so that no process ever holds the whole model: those in the outermost lists."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from (part for part in child if any(True for _ in part.parameters()))
        else:
            yield from _blocks(child)

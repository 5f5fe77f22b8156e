"""Fully sharded training (FSDP): of every weight, gradient and moment each process keeps its part alone.

What is saved is whole, so that it is read by any number of processes, sharded or not. Imports are where they are
needed, since torch takes seconds over them that evaluation and play need not.
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
    """A copy of a model that is alike in all processes, of whose parameters each process of the mesh keeps its part."""
    from torch.distributed.fsdp import fully_shard

    # No model changes in place what a module returns.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # FSDP takes no other order in memory.
    copied = deepcopy(model).to(mesh.device_type, memory_format=torch.contiguous_format)
    for part in (*_blocks(copied), copied):
        fully_shard(part, mesh=mesh)
    return copied


def shard_like(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor that all processes hold whole, sharded as another of its shape if that is; itself if not."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of which this process may hold a part alone; all processes must ask."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(state: Any, *, keep: bool) -> Any:
    """A tree whose sharded tensors are whole and on the CPU; all processes must ask.

    Args:
        state: the tree.
        keep: whether this process wants them; the others' are None.
    """

    from torch.distributed.tensor import DTensor

    def gather(tensor: torch.Tensor) -> torch.Tensor | None:
        full = tensor.full_tensor()
        return full.cpu() if keep else None

    return tree_map_only(DTensor, gather, state)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """`load_state_dict` of whole tensors, whether the optimizer's parameters are sharded or not."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        index: {name: shard_like(value, parameters[index]) for name, value in values.items()}
        for index, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": sharded})


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """What is gathered by itself, so that no process ever holds the whole: the modules in the outermost lists."""
    for child in module.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            yield from (part for part in child if any(True for _ in part.parameters()))
        else:
            yield from _blocks(child)

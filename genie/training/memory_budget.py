"""A training that memory cannot hold is refused before it starts, rather than ended by the system hours later."""

import math

import torch

from genie.core.frames import FRAME_SHAPE
from genie.core.params import Params
from genie.data.episodes import HELD_BYTES
from genie.distributed.devices import resolve_device, resolve_precision
from genie.distributed.processes import free_memory, num_local_processes, num_processes
from genie.training.costs import Model, section_of, si, step_costs

PROCESS_BYTES = 600 * 10**6  # of Python and the libraries, before there is a model


class MemoryBudgetError(ValueError):
    """A training needs more memory than there is; the message tells both figures and the fix."""


def check_memory(model: Model, params: Params) -> None:
    """Compares the memory that training a model needs with the free memory of its device.

    Counts weights, gradients, optimizer state and the activations kept for backward; on a CPU also the frames held in
    memory and the process itself, for each process of this machine. Temporary buffers are not counted, so a training
    that passes may still run out of memory.

    Raises:
        MemoryBudgetError: there is too little.
    """
    device = resolve_device(params.runtime)
    costs = step_costs(model, params, bf16=resolve_precision(params.runtime, device) == "bf16")
    state = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes
    if params.runtime.strategy == "fsdp":
        state = -(-state // num_processes())
    if device.type == "cuda":  # each process has a device of its own, and its share of the batch
        batch = costs.activation_bytes // num_processes()
        needed = state + batch
    else:  # the processes of this machine share its memory
        held = 0 if model in ("motion", "steering", "dynamics") else _held_bytes(params)
        local = num_local_processes()
        batch = (costs.activation_bytes + costs.score_bytes) * local // num_processes()
        needed = local * (state + PROCESS_BYTES + held) + batch
    free = free_bytes(device)
    if needed > free:
        section = section_of(model, params)
        raise MemoryBudgetError(
            f"training needs about {si(needed, 'B')} of memory ({si(batch, 'B')} of them for a batch of "
            f"{costs.samples}), but {device.type} has {si(free, 'B')} free: lower {section}.batch_size or "
            f"{section}.width, or free some"
        )


def free_bytes(device: torch.device) -> int:
    """Memory that a new process can have on a device; on a CPU no more than its container's limit leaves."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def _held_bytes(params: Params) -> int:
    """Of the frames to train on, which are held if they are few."""
    size = params.collect.frames.train * math.prod(FRAME_SHAPE)
    return size if size <= HELD_BYTES else 0

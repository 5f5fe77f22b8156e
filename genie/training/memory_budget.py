"""A training that memory cannot hold is refused before it starts, rather than ended by the system hours later."""

import math

import psutil
import torch

from genie.core.containers import memory_left
from genie.core.frames import FRAME_SHAPE
from genie.core.params import Params
from genie.data.episodes import HELD_BYTES
from genie.distributed.devices import resolve_device, resolve_precision
from genie.training.costs import Model, section_of, si, step_costs

PROCESS_BYTES = 600 * 10**6  # of Python and the libraries, before there is a model


class MemoryBudgetError(ValueError):
    """A training needs more memory than there is; the message tells both figures and the fix."""


def check_memory(model: Model, params: Params) -> None:
    """Compares what training a model needs with what its device has free.

    Counted are weights, gradients, optimizer state and what forward keeps for backward, and on a CPU the frames held
    and the process itself. What is needed for a moment only is not, so a training that is let through may still fail.

    Raises:
        MemoryBudgetError: there is too little.
    """
    device = resolve_device(params.runtime)
    costs = step_costs(model, params, bf16=resolve_precision(params.runtime, device) == "bf16")
    state = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes
    needed, batch = state + costs.activation_bytes, costs.activation_bytes
    if device.type == "cuda" and params.runtime.strategy == "fsdp":
        needed -= state - state // params.runtime.processes
    if device.type != "cuda":
        held = 0 if model in ("motion", "steering", "dynamics") else _held_bytes(params)
        needed += costs.score_bytes + PROCESS_BYTES + held
        batch += costs.score_bytes
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
    return int(min(psutil.virtual_memory().available, memory_left()))


def _held_bytes(params: Params) -> int:
    """Of the frames to train on, which are held if they are few."""
    size = params.collect.frames.train * math.prod(FRAME_SHAPE)
    return size if size <= HELD_BYTES else 0

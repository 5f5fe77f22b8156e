"""A training that memory cannot hold is refused before it starts, rather than ended by the system hours later."""

import math

import torch

from genie.core.params import Params
from genie.data.supply import fitting_place
from genie.distributed.devices import free_bytes, resolve_device, resolve_precision
from genie.distributed.processes import num_local_processes, num_processes
from genie.training.costs import TOKENS_A_FRAME, Model, section_of, si, step_costs

TOKEN_BYTES = 2 * TOKENS_A_FRAME + 1  # of a frame's tokens and latent action
PROCESS_BYTES = 600 * 10**6  # of Python and the libraries, before there is a model


class MemoryBudgetError(ValueError):
    """A training needs more memory than there is; the message tells both figures and the fix."""


def check_memory(model: Model, params: Params) -> None:
    """Compares the memory that training a model needs with the free memory of its device.

    Counts weights, gradients, optimizer state, the activations kept for backward and the data held there; on a CPU
    also the process itself, all of them for each process of this machine. Temporary buffers are not counted, so a
    training that passes may still run out of memory.

    Raises:
        MemoryBudgetError: there is too little.
    """
    device = resolve_device(params.runtime)
    costs = step_costs(model, params, bf16=resolve_precision(params.runtime, device) == "bf16")
    state = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes
    if params.runtime.strategy == "fsdp":
        state = -(-state // num_processes())
    held = _held_bytes(model, params, device)
    if device.type == "cuda":  # each process has a device of its own, and its share of the batch
        batch = costs.activation_bytes // num_processes()
        needed = state + held + batch
    else:  # the processes of this machine share its memory
        local = num_local_processes()
        batch = (costs.activation_bytes + costs.score_bytes) * local // num_processes()
        needed = local * (state + PROCESS_BYTES + held) + batch
    free = free_bytes(device)
    if needed > free:
        section = section_of(model, params)
        raise MemoryBudgetError(
            f"training needs about {si(needed, 'B')} of memory ({si(batch, 'B')} of them for a batch of "
            f"{costs.samples}), but {device.type} has {si(free, 'B')} free: lower {section}.batch_size or "
            f"{section}.width, keep the data elsewhere (runtime.training_data: files), or free some"
        )


def _held_bytes(model: Model, params: Params, device: torch.device) -> int:
    """Bytes of training data that `keep_data` will load into the device's memory."""
    if model in ("motion", "steering"):
        return 0  # a few numbers per transition
    num_frames = params.collect.frames.train
    size = num_frames * (TOKEN_BYTES if model == "dynamics" else math.prod(params.collect.frame_shape))
    place = params.runtime.training_data
    if place == "auto":
        place = fitting_place(size, device)
    return size if place == "device" or (place == "memory" and device.type == "cpu") else 0

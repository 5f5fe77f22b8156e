"""Creation of the `Accelerator`: device, precision, compiler and threads of a stage."""

import os
import warnings
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import TorchDynamoPlugin
from torch.distributed import DistError, init_device_mesh

from genie.core.params import RuntimeParams
from genie.distributed.devices import (
    RuntimeUnavailableError,
    keep_freed_memory,
    resolve_compiler,
    resolve_device,
    resolve_precision,
)
from genie.distributed.processes import num_threads

PATIENCE = timedelta(minutes=10)  # how long processes wait for others that are still starting or validating


def make_accelerator(runtime: RuntimeParams, *, training: bool = False) -> Accelerator:
    """Creates the accelerator of a stage: device, precision, compiler and, if processes shard a model, the device mesh
    `torch_device_mesh`. Also sets the number of CPU threads and how freed memory is handled.

    Args:
        runtime: runtime params.
        training: whether it prepares a model for training. Only then is the model compiled: measuring and sampling use
            other shapes.

    Raises:
        RuntimeUnavailableError: the requested device is unavailable, or this process cannot reach the others of its
            group.
    """
    device = resolve_device(runtime)
    keep_freed_memory()
    # Set before any thread is created, since threads inherit it: otherwise old optimiser moments decay into denormal
    # numbers, on which a CPU is many times slower.
    torch.set_flush_denormal(True)
    torch.set_num_threads(num_threads(runtime))
    if "LOCAL_RANK" in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(num_threads(runtime))  # otherwise accelerate sets another number
    precision = resolve_precision(runtime, device)
    if device.type == "cuda" and precision == "bf16":
        torch.set_float32_matmul_precision("high")  # TF32 for what stays in float32: more precise than bf16 elsewhere
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # accelerate supports no other name
    try:
        accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if precision == "bf16" else "no",
            dynamo_plugin=TorchDynamoPlugin(
                backend=resolve_compiler(runtime, device) if training else "no",  # pyright: ignore[reportArgumentType]
                mode="reduce-overhead" if runtime.compile == "graphs" else "default",
            ),
            # Buffers are the codebooks, which every update keeps identical in all processes.
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=PATIENCE),
            ],
        )
    except DistError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RuntimeUnavailableError(
            f"process {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')} cannot reach the others at {where} "
            f"({str(error).splitlines()[0]})"
        ) from None
    if training and runtime.strategy == "fsdp" and accelerator.num_processes > 1:
        # Set here, since accelerate does not shard over CPUs.
        accelerator.state.device_mesh = init_device_mesh(device.type, (accelerator.num_processes,))  # pyright: ignore[reportAttributeAccessIssue]
    return accelerator

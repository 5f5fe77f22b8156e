"""Where and how a stage computes: device, precision, compiler and threads from one place, as an `Accelerator`."""

import os
import warnings
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
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

PATIENCE = timedelta(minutes=10)  # with processes that are not there yet, or validate while the others wait


def make_accelerator(runtime: RuntimeParams, *, training: bool = False) -> Accelerator:
    """The one object that knows device, precision and compiler, and as `torch_device_mesh` the processes that shard a
    model, if they do; also sets the number of CPU threads and what becomes of freed memory.

    Args:
        runtime: what is asked for.
        training: whether it is to prepare a model, which alone is compiled: what measures or samples has other shapes.

    Raises:
        RuntimeUnavailableError: the device named is not there, or this is one of several processes and cannot reach the
            others.
    """
    device = resolve_device(runtime)
    keep_freed_memory()
    # Before any thread is made, which takes over the setting: moments of gradients long gone would otherwise decay
    # into denormal numbers, on which a CPU is many times slower.
    torch.set_flush_denormal(True)
    torch.set_num_threads(num_threads(runtime))
    if "LOCAL_RANK" in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(num_threads(runtime))  # or accelerate sets another number
    precision = resolve_precision(runtime, device)
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # accelerate knows no other name for it
    try:
        accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if precision == "bf16" else "no",
            dynamo_backend=resolve_compiler(runtime, device) if training else "no",
            # Buffers are the codebooks, which each update keeps alike in all processes.
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
        # Here, since accelerate itself shards over no CPUs.
        accelerator.state.device_mesh = init_device_mesh(device.type, (accelerator.num_processes,))
    return accelerator

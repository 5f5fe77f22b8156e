"""Where and how numbers are computed: device, precision, compiler and threads from one place, as an `Accelerator`."""

import ctypes
import os
import sys
import warnings
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch.distributed import DistError, init_device_mesh

from genie.params import RuntimeParams
from genie.processes import num_threads

# What glibc's `mallopt` is told, by its numbers of <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
PATIENCE = timedelta(minutes=10)  # with processes that are not there yet, or validate while the others wait


class RuntimeUnavailableError(ValueError):
    """The device or precision asked for is not to be had on this machine."""


def resolve_device(runtime: RuntimeParams) -> torch.device:
    """The device to use; `auto` takes a GPU where there is one.

    Raises:
        RuntimeUnavailableError: the device named is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if runtime.device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[runtime.device]:
        raise RuntimeUnavailableError(f"runtime.device: no {runtime.device} device here; use auto or cpu")
    return torch.device(runtime.device)


def resolve_precision(runtime: RuntimeParams, device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` takes bf16 where the hardware multiplies it faster than fp32."""
    if runtime.precision != "auto":
        return runtime.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    return "fp32"


def resolve_compiler(runtime: RuntimeParams, device: torch.device) -> str:
    """`inductor`, or `no` where none is asked for or none works, which is told in one line on stderr."""
    if not runtime.compile:
        return "no"
    # Or a compiled model draws other random numbers than one that is not.
    torch._inductor.config.fallback_random = True
    try:
        # Without a cache that would hide that the compiler has gone.
        torch.compile(lambda x: x.sin() + 1, options={"fx_graph_cache": False})(torch.ones(8, device=device))
    except Exception as error:  # whatever a compiler, its driver or torch may come up with
        if os.environ.get("RANK", "0") == "0":
            cause = " ".join(str(error).partition("\n\n")[0].split())[:200] or type(error).__name__
            print(f"runtime.compile: no compiler works here ({cause}); training uncompiled", file=sys.stderr)
        return "no"
    return "inductor"


def keep_freed_memory() -> None:
    """Has this process keep the memory of freed tensors for the next ones.

    glibc gives large blocks back to the system at once, which then makes each page of the next tensor anew: on a CPU a
    fifth of the time of training the dynamics, and two fifths of that of dreaming. Other C libraries are left alone.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
        libc.mallopt(M_TOP_PAD, 2**26)


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

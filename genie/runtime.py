"""Where and how numbers are computed: device, precision and threads from one place, as an `Accelerator`."""

import os

import torch
from accelerate import Accelerator

from genie.params import RuntimeParams


class RuntimeUnavailableError(ValueError):
    """The device or precision asked for is not to be had on this machine."""


def num_threads(runtime: RuntimeParams) -> int:
    """CPU threads to use: those asked for, or one a core this process may run on."""
    if runtime.threads:
        return runtime.threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


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


def make_accelerator(runtime: RuntimeParams) -> Accelerator:
    """The one object that knows device and precision; also sets the number of CPU threads.

    Raises:
        RuntimeUnavailableError: the device named is not there.
    """
    device = resolve_device(runtime)
    # Before any thread is made, which takes over the setting: moments of gradients long gone would otherwise decay
    # into denormal numbers, on which a CPU is many times slower.
    torch.set_flush_denormal(True)
    torch.set_num_threads(num_threads(runtime))
    precision = resolve_precision(runtime, device)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if precision == "bf16" else "no")

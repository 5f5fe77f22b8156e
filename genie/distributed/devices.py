"""What there is to compute with: device, precision, compiler, and the memory of freed tensors."""

import ctypes
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genie.distributed.processes import num_threads, rank

if TYPE_CHECKING:
    from genie.core.params import RuntimeParams

# What glibc's `mallopt` is told, by its numbers of <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


class RuntimeUnavailableError(ValueError):
    """The device or precision asked for is not to be had on this machine."""


def resolve_device(runtime: "RuntimeParams") -> torch.device:
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


def resolve_precision(runtime: "RuntimeParams", device: torch.device) -> str:
    """`fp32` or `bf16`; `auto` takes bf16 where the hardware multiplies it faster than fp32."""
    if runtime.precision != "auto":
        return runtime.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    return "fp32"


def resolve_compiler(runtime: "RuntimeParams", device: torch.device) -> str:
    """`inductor`, or `no` where none is asked for or none works, which is told in one line on stderr."""
    if not runtime.compile:
        return "no"
    # Or a compiled model draws other random numbers than one that is not.
    torch._inductor.config.fallback_random = True
    try:
        # Without a cache that would hide that the compiler has gone.
        torch.compile(lambda x: x.sin() + 1, options={"fx_graph_cache": False})(torch.ones(8, device=device))
    except Exception as error:  # whatever a compiler, its driver or torch may come up with
        if rank() == 0:
            cause = " ".join(str(error).partition("\n\n")[0].split())[:200] or type(error).__name__
            print(f"runtime.compile: no compiler works here ({cause}); training uncompiled", file=sys.stderr)
        return "no"
    return "inductor"


def describe_device(runtime: "RuntimeParams") -> str:
    """Device, precision and threads in a few words, and why a card that is there is not used.

    Raises:
        RuntimeUnavailableError: the device asked for is not there.
    """
    device = resolve_device(runtime)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    text = f"{name}, {resolve_precision(runtime, device)}, {num_threads(runtime)} threads"
    if runtime.device == "auto" and device.type != "cuda" and _has_nvidia_card():
        if torch.version.cuda is None:
            cause = "this torch is a CPU build"
        elif "CUDA_VISIBLE_DEVICES" in os.environ:
            cause = "CUDA_VISIBLE_DEVICES hides it"
        else:
            cause = f"its driver may be older than CUDA {torch.version.cuda} needs"
        text += f" (there is an NVIDIA card, which torch cannot use: {cause})"
    return text


def _has_nvidia_card() -> bool:
    return NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None


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

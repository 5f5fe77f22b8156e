"""Compute resources: device, precision, compiler, and the memory of freed tensors."""

import ctypes
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from genie.distributed.processes import free_memory, num_threads, rank

if TYPE_CHECKING:
    from genie.core.params import RuntimeParams

# Parameters of glibc's `mallopt`, as numbered in <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


class RuntimeUnavailableError(ValueError):
    """The requested device or precision is unavailable on this machine."""


def resolve_device(runtime: "RuntimeParams") -> torch.device:
    """Returns the device to use; `auto` selects a GPU if there is one.

    Raises:
        RuntimeUnavailableError: the requested device is unavailable.
    """
    # torch warns at length if it cannot use a card; `_why_unused` says why in one line.
    warnings.filterwarnings("ignore", "CUDA initialization")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if runtime.device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[runtime.device]:
        cause = _why_unused() if runtime.device == "cuda" else ""
        raise RuntimeUnavailableError(f"runtime.device: no {runtime.device} device here{cause}; use auto or cpu")
    return torch.device(runtime.device)


def free_bytes(device: torch.device) -> int:
    """Memory that a new process can have on a device; on a CPU no more than its container's limit leaves."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def resolve_precision(runtime: "RuntimeParams", device: torch.device) -> str:
    """Returns `fp32` or `bf16`; `auto` selects bf16 if the hardware multiplies it faster than fp32."""
    if runtime.precision != "auto":
        return runtime.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu":
        return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
    return "fp32"


def resolve_compiler(runtime: "RuntimeParams", device: torch.device) -> str:
    """Returns `inductor`, or `no` if compilation is off or no compiler works; the latter prints one line on stderr."""
    if not runtime.compile:
        return "no"
    # Otherwise compiled and uncompiled models draw different random numbers.
    torch._inductor.config.fallback_random = True  # pyright: ignore[reportAttributeAccessIssue]
    try:
        # Without the cache, which would hide a missing compiler.
        torch.compile(lambda x: x.sin() + 1, options={"fx_graph_cache": False})(torch.ones(8, device=device))
    except Exception as error:  # compilers, drivers and torch raise many exception types
        if rank() == 0:
            cause = " ".join(str(error).partition("\n\n")[0].split())[:200] or type(error).__name__
            print(f"runtime.compile: no compiler works here ({cause}); training uncompiled", file=sys.stderr)
        return "no"
    return "inductor"


def describe_device(runtime: "RuntimeParams") -> str:
    """Describes device, precision and threads, and why an existing NVIDIA card is not used.

    Raises:
        RuntimeUnavailableError: the requested device is unavailable.
    """
    device = resolve_device(runtime)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    text = f"{name}, {resolve_precision(runtime, device)}, {num_threads(runtime)} threads"
    return text + _why_unused() if runtime.device == "auto" and device.type != "cuda" else text


def _why_unused() -> str:
    """Says in parentheses why torch cannot use an NVIDIA card; empty if there is none."""
    if not _has_nvidia_card():
        return ""
    if torch.version.cuda is None:
        cause = "this torch is a CPU build"
    elif "CUDA_VISIBLE_DEVICES" in os.environ:
        cause = "CUDA_VISIBLE_DEVICES hides it"
    else:
        cause = f"its driver may be older than CUDA {torch.version.cuda} needs"
        try:
            torch.cuda.init()
        except RuntimeError as error:
            cause = " ".join(str(error).split()).partition(". ")[0]
    return f" (there is an NVIDIA card, which torch cannot use: {cause})"


def _has_nvidia_card() -> bool:
    return NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None


def keep_freed_memory() -> None:
    """Keeps the memory of freed tensors in this process for reuse.

    glibc returns large blocks to the system at once, which then allocates each page of the next tensor again. On a CPU
    this takes a fifth of the time of training the dynamics and two fifths of the time of dreaming. Other C libraries
    are left unchanged.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)
        libc.mallopt(M_TOP_PAD, 2**26)

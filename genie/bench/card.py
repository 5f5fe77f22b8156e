"""The NVIDIA card: its name, and what its driver tells by NVML. Without a card or its driver's library, nothing."""

from collections.abc import Callable

import torch

from genie.core.params import Params
from genie.distributed.devices import resolve_device


def describe(params: Params) -> dict[str, str]:
    """`card` and, if NVML is there, `driver`; empty if training uses no CUDA device."""
    device = resolve_device(params.runtime)
    if device.type != "cuda":
        return {}
    found = {"card": torch.cuda.get_device_name(device)}
    if nvml := _nvml(device):
        found["driver"] = str(nvml[0].nvmlSystemGetDriverVersion())
    return found


def energy_counter(device: torch.device) -> Callable[[], float] | None:
    """A function that returns the joules that the card has used since its driver was loaded; None if it counts none."""
    nvml = _nvml(device)
    if nvml is None:
        return None
    pynvml, handle = nvml

    def joules() -> float:
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000

    try:
        joules()
    except pynvml.NVMLError:
        return None
    return joules


def _nvml(device: torch.device):
    """The module `pynvml` and its handle of a CUDA device, or None."""
    if device.type != "cuda":
        return None
    try:
        import pynvml  # of nvidia-ml-py
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # Not by index: CUDA_VISIBLE_DEVICES renumbers cards.
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return None

"""The most expensive kernels of a training step, and where the step waits for the device."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from genie.bench.timed_step import Step
from genie.bench.timing import wait_for

STEPS, KERNELS = 5, 15
# Calls after which the host has waited for the device, and copies for which it usually waits.
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "Memcpy DtoH", "aten::_local_scalar_dense")


def profile_steps(step: Step) -> dict[str, Any]:
    """Profiles a few steps.

    Returns:
        `kernels`: the most expensive first, each with its `name`, `ms` per step and `calls` per step, of a CPU its
        operators; `kernels_ms`: milliseconds per step of all kernels; `waits`: calls of `WAITS` per step.
    """
    is_cuda = step.device.type == "cuda"
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if is_cuda else [])
    wait_for(step.device)
    with profile(activities=activities) as profiled:
        step.train(STEPS)
        wait_for(step.device)
    events, waits = profiled.key_averages(), Counter()
    kernels = []
    for event in events:
        is_kernel = event.device_type == (DeviceType.CUDA if is_cuda else DeviceType.CPU)
        if is_kernel and not getattr(event, "is_user_annotation", False) and "Optimizer." not in event.key:
            microseconds = event.self_device_time_total if is_cuda else event.self_cpu_time_total
            kernels.append({"name": event.key, "ms": microseconds / 1000 / STEPS, "calls": event.count / STEPS})
        for wait in WAITS:
            if event.key.startswith(wait):
                waits[wait] += event.count / STEPS
    kernels.sort(key=lambda kernel: -kernel["ms"])
    return {"kernels": kernels[:KERNELS], "kernels_ms": sum(kernel["ms"] for kernel in kernels), "waits": dict(waits)}


def synchronising_lines(step: Step) -> dict[str, float]:
    """Lines of code at which a CUDA device is waited for, as `file:line`, with their calls per step."""
    if step.device.type != "cuda":
        return {}
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step.train(STEPS)
        finally:
            torch.cuda.set_sync_debug_mode(before)
    lines = Counter(
        f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
        for warning in caught
        if "synchronizing CUDA operation" in str(warning.message)
    )
    return {line: count / STEPS for line, count in lines.most_common()}

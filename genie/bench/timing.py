"""Timing things that are to be compared: they take turns, so that whatever else the machine does meets all alike."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


def take_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds of one call of each side, the median over the rounds.

    Args:
        sides: called once unmeasured, then in order, again and again; each must end only when its work is done.
        rounds: measured calls of each.
        clock: seconds since whenever.
    """
    for side in sides.values():
        side()
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = clock()
            side()
            seconds[name].append(clock() - start)
    return {name: median(measured) for name, measured in seconds.items()}


def wait_for(device: torch.device) -> None:
    """Until the device has done all it was told; a CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize()

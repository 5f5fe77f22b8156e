"""Timing of variants in alternation, so that other load on the machine affects all of them alike."""

import time
from collections.abc import Callable, Mapping
from statistics import median

import torch


def take_turns(
    sides: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Times variants alternately, and returns the median seconds per call of each.

    Args:
        sides: variants by name, called once untimed and then in order, repeatedly; each must block until its work is
            done.
        rounds: number of timed calls of each.
        clock: returns seconds since an arbitrary time.
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
    """Waits until the device has finished all its work; a no-op on a CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize()

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
            done, unless the clock waits for it.
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


def clock_of(device: torch.device) -> Callable[[], float]:
    """A clock that is read once the device has done its work: its own on a CUDA device, by events."""
    if device.type == "cpu":
        return time.perf_counter
    if device.type != "cuda":

        def waited() -> float:
            wait_for(device)
            return time.perf_counter()

        return waited

    def event() -> torch.cuda.Event:
        recorded = torch.cuda.Event(enable_timing=True)
        recorded.record()
        recorded.synchronize()
        return recorded

    origin = event()
    return lambda: origin.elapsed_time(event()) / 1000


def wait_for(device: torch.device) -> None:
    """Waits until the device has finished all its work; a no-op on a CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize()

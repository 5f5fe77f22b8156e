"""Benchmark of training steps that overlap, as in training, and of what they take of a card."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

from genie.bench.card import energy_counter
from genie.bench.figures import Figure
from genie.bench.timed_step import Step
from genie.bench.timing import clock_of, take_turns, wait_for

STEPS = 8  # steps of one timed call
COUNTED_SECONDS = 1.0  # of which the energy is counted
NO_WAITING = 1e-4


def measure_on_device(
    step: Step, products: Mapping[str, Callable[[], None]], rounds: int
) -> tuple[dict[str, float], list[Figure]]:
    """Measures steps that overlap as in training, by the device's clock.

    Returns:
        Seconds of a step (`step`) and of each matrix product, timed alternately; and figures: `trained_seconds` of such
        a step, `alone_seconds` of one on a batch that is already on the device, `waiting_share`, by which the first
        exceeds the second (at least `NO_WAITING`, as noise can exceed it), and on a card joules.
    """
    name, device = step.name, step.device
    batch = step.draw()
    sides = {"step": lambda: step.train(STEPS), "alone": lambda: step.train(STEPS, batch)}
    seconds = take_turns({**sides, **products}, rounds, clock_of(device))
    seconds |= {side: seconds[side] / STEPS for side in sides}
    trained, alone = seconds["step"], seconds["alone"]
    figures = [
        Figure(f"{name}.trained_seconds", trained, "s"),
        Figure(f"{name}.alone_seconds", alone, "s", f"{name}.trained_seconds"),
        Figure(f"{name}.waiting_share", max(NO_WAITING, 1 - alone / trained), "of a step"),
    ]
    if counter := energy_counter(device):
        figures.append(Figure(f"{name}.joules", _joules(step, counter), "J/step"))
    for _ in range(rounds):
        step()  # in `step.seconds`, by phase
    return seconds, figures


def optimizer_seconds(step: Step, rounds: int) -> dict[str, float]:
    """Median seconds of each part of the phase `optimizer`, each waited for: the optimizers by name, and
    `clip_and_rest`, mostly gradient clipping."""
    began, seconds = {}, defaultdict(list)
    step.seconds.clear()

    def begin(name: str, *_) -> None:
        wait_for(step.device)
        began[name] = time.perf_counter()

    def end(name: str, *_) -> None:
        wait_for(step.device)
        seconds[name].append(time.perf_counter() - began[name])

    hooks = []
    for name, optimizer in step.optimizers.items():
        hooks.append(optimizer.register_step_pre_hook(partial(begin, name)))
        hooks.append(optimizer.register_step_post_hook(partial(end, name)))
    for _ in range(rounds):
        step()
    for hook in hooks:
        hook.remove()
    parts = zip(step.seconds["optimizer"], *seconds.values(), strict=True)
    seconds["clip_and_rest"] = [whole - sum(updates) for whole, *updates in parts]
    return {name: median(taken) for name, taken in seconds.items()}


def _joules(step: Step, counter: Callable[[], float]) -> float:
    """Energy of a step, over the time in which the driver updates its counter several times."""
    wait_for(step.device)
    start, joules, steps = time.perf_counter(), counter(), 0
    while time.perf_counter() - start < COUNTED_SECONDS:
        step.train(STEPS)
        wait_for(step.device)
        steps += STEPS
    return (counter() - joules) / steps

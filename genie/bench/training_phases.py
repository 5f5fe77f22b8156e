"""Benchmark of a training step: its speed, its share of the machine's peak, its phases, and how it scales.

Share of peak: the FLOP/s of a step divided by the FLOP/s of the fastest of a few square matrix products. The products
are timed alternately with the step, in the precision of training. torch's FlopCounterMode counts the operations
(`genie.training.costs`), only those of matrix products and convolutions; a multiply-add is two. `model_tflops` counts
forward and backward, `tflops` the optimizer too; both are divided by the time of the whole step.

On a GPU several steps are timed at once, so that launches overlap with computation as in training, and the phases, each
of which is waited for, in a pass of their own.
"""

from pathlib import Path
from statistics import median

from genie.bench.device_steps import measure_on_device
from genie.bench.figures import Figure
from genie.bench.machine import matmul_flops_per_second, matrix_products
from genie.bench.peak import device_memory, peak_memory
from genie.bench.timed_step import PHASES, Step
from genie.bench.timing import take_turns
from genie.core.params import Params
from genie.training.costs import Model

ROUNDS, GROWTH_ROUNDS = 15, 7
# Figure for reading a model's training windows. The LAM has none: its transitions are held as a few numbers each.
SUPPLY = {"dynamics": "reading.tokens.frames_per_second"}
# Settings that are doubled, by reported name. A window is doubled together with the context that it holds.
GROWTH = {
    "tokenizer": {"width": ("width",), "batch": ("batch_size",)},
    "lam": {"width": ("width",), "batch": ("batch_size",)},
    "dynamics": {"width": ("width",), "batch": ("batch_size",), "context": ("context_frames", "window")},
}


def measure(params: Params, folder: Path, name: Model) -> list[Figure]:
    """Measures one model, at the size and batch size of `params`."""
    step = Step(name, params, folder)
    step.warm_up()
    peak = peak_memory(name, beside="machine.peak_memory")
    on_device = device_memory(name, step.device)
    products = matrix_products(step.device, step.mixed_precision)
    if step.device.type == "cuda":
        seconds, figures = measure_on_device(step, products, ROUNDS)
        on_device += figures
    else:
        seconds = take_turns({"step": step, **products}, ROUNDS)
    flops = {
        "model_tflops": step.costs.model_flops,
        "tflops": step.costs.model_flops + step.costs.optimizer_flops,
    }
    speeds = [(key, count / seconds["step"] / 1e12) for key, count in flops.items()]
    phases = {phase: median(step.seconds[phase]) for phase in PHASES}
    return [
        Figure(f"{name}.frames_per_second", step.frames / seconds["step"], "frames/s", SUPPLY.get(name, "")),
        Figure(f"{name}.samples_per_second", step.params.batch_size / seconds["step"], "samples/s"),
        *(Figure(f"{name}.{key}", speed, "TFLOP/s", f"{name}.matmul_tflops") for key, speed in speeds),
        Figure(f"{name}.matmul_tflops", matmul_flops_per_second(seconds) / 1e12, "TFLOP/s"),
        Figure(f"{name}.step_seconds", sum(phases.values()), "s"),
        *(Figure(f"{name}.{phase}_seconds", taken, "s", f"{name}.step_seconds") for phase, taken in phases.items()),
        *on_device,
        peak,
    ]


def measure_growth(params: Params, folder: Path, name: Model, what: str) -> list[Figure]:
    """Measures one model with an entry of `GROWTH` doubled: memory, and speed relative to the original size."""
    section, own = getattr(params, name), params.lam.kind if name == "lam" else None
    grows = getattr(section, own) if own else section
    doubled = grows.model_copy(update={key: 2 * getattr(grows, key) for key in GROWTH[name][what]})
    section = section.model_copy(update={own: doubled}) if own else doubled
    grown = Step(name, params.model_copy(update={name: section}), folder)
    grown.warm_up()
    peak = peak_memory(f"{name}.{what}_x2", beside=f"{name}.peak_memory")  # before the original takes any memory
    step = Step(name, params, folder)
    step.warm_up()
    seconds = take_turns({"step": step, "grown": grown}, GROWTH_ROUNDS)
    speed = grown.frames / seconds["grown"] / (step.frames / seconds["step"])
    return [Figure(f"{name}.{what}_x2.speed", speed, f"of {name}.frames_per_second"), peak]

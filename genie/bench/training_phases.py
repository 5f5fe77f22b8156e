"""Benchmark of a training step: its speed, its share of the machine's peak, its phases, and how it scales.

Share of peak: the FLOP/s of a step divided by the FLOP/s of the fastest of a few square matrix products. The products
are timed alternately with the step, in the precision of training. torch's FlopCounterMode counts the operations
(`genie.training.costs`), only those of matrix products and convolutions; a multiply-add is two. `model_tflops` counts
forward and backward, `tflops` the optimizer too; both are divided by the time of the whole step.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from torch import nn

from genie.bench.figures import Figure
from genie.bench.machine import matmul_flops_per_second, matrix_products
from genie.bench.peak import peak_memory
from genie.bench.reading import WITHOUT_END
from genie.bench.timing import take_turns, wait_for
from genie.core.params import Params
from genie.data.caches import read_latent_actions, read_tokens
from genie.data.episodes import EpisodeStore
from genie.data.supply import batches, keep_data
from genie.data.transitions import TransitionWindows
from genie.data.windows import FrameWindows, TokenWindows, Windows
from genie.distributed.accelerator import make_accelerator
from genie.models.surprise_lam import SurpriseLam
from genie.training.costs import Model, build, step_costs, training_params
from genie.training.step import TrainingStep

ROUNDS, GROWTH_ROUNDS, WARM_UP = 15, 7, 3
PHASES = ("data", "forward", "backward", "optimizer")
# Figure for reading a model's training windows. The LAM has none: its transitions are held as a few numbers each.
SUPPLY = {"dynamics": "reading.tokens.frames_per_second"}
# Settings that are doubled, by reported name. A window is doubled together with the context that it holds.
GROWTH = {
    "tokenizer": {"width": ("width",), "batch": ("batch_size",)},
    "lam": {"width": ("width",), "batch": ("batch_size",)},
    "dynamics": {"width": ("width",), "batch": ("batch_size",), "context": ("context_frames", "window")},
}


class Step:
    """Training of a model, in which each call is one step, timed by phase.

    Attributes:
        model: the model in training.
        frames: number of frames per batch.
        seconds: list of each phase's seconds over the calls.
    """

    def __init__(self, name: Model, params: Params, folder: Path):
        self.params, self._accelerator = training_params(name, params), make_accelerator(params.runtime)
        self.device, self.mixed_precision = self._accelerator.device, self._accelerator.mixed_precision
        self.frames = step_costs(name, params).frames
        self.seconds = defaultdict(list)
        self.model, dataset = model_and_data(name, params, folder)
        self.model.to(self.device)
        self._train = TrainingStep(self.model, self.params, self._accelerator)
        keep_data(dataset, self.device, params.runtime.training_data)
        self._drawn = batches(dataset, self.device)

    def __call__(self) -> None:
        with self._phase("data"):
            batch = next(self._drawn)
        self._train(batch, timed=self._phase)

    def warm_up(self) -> None:
        """Runs a few untimed steps: the first ones initialise codebooks and prepare kernels."""
        for _ in range(WARM_UP):
            self()
        self.seconds.clear()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        wait_for(self.device)
        self.seconds[name].append(time.perf_counter() - start)


def measure(params: Params, folder: Path, name: Model) -> list[Figure]:
    """Measures one model, at the size and batch size of `params`."""
    step = Step(name, params, folder)
    step.warm_up()
    peak = peak_memory(name, beside="machine.peak_memory")
    products = matrix_products(step.device, step.mixed_precision)
    seconds = take_turns({"step": step, **products}, ROUNDS)
    costs = step_costs(name, params, bf16=step.mixed_precision == "bf16")
    flops = {"model_tflops": costs.model_flops, "tflops": costs.model_flops + costs.optimizer_flops}
    speeds = [(key, count / seconds["step"] / 1e12) for key, count in flops.items()]
    phases = {phase: median(step.seconds[phase]) for phase in PHASES}
    return [
        Figure(f"{name}.frames_per_second", step.frames / seconds["step"], "frames/s", SUPPLY.get(name, "")),
        Figure(f"{name}.samples_per_second", step.params.batch_size / seconds["step"], "samples/s"),
        *(Figure(f"{name}.{key}", speed, "TFLOP/s", f"{name}.matmul_tflops") for key, speed in speeds),
        Figure(f"{name}.matmul_tflops", matmul_flops_per_second(seconds) / 1e12, "TFLOP/s"),
        Figure(f"{name}.step_seconds", sum(phases.values()), "s"),
        *(Figure(f"{name}.{phase}_seconds", taken, "s", f"{name}.step_seconds") for phase, taken in phases.items()),
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


def model_and_data(
    name: Model, params: Params, folder: Path, num_batches: int = WITHOUT_END
) -> tuple[nn.Module, Windows]:
    """The model as its stage builds it, and its training batches from the data in the folder."""
    settings, model = training_params(name, params), build(name, params)
    drawn = settings.batch_size, settings.seed, num_batches
    if name == "dynamics":
        caches = read_tokens(folder / "tokens/train"), read_latent_actions(folder / "actions/train.h5")
        return model, TokenWindows(*caches, params.dynamics.window, *drawn)
    store = EpisodeStore(folder / "frames/train")
    if isinstance(model, SurpriseLam):
        return model, TransitionWindows(model, store, *drawn)
    return model, FrameWindows(store, getattr(settings, "window", 1), *drawn)

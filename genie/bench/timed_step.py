"""A step of training whose phases are timed."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from genie.bench.timing import wait_for
from genie.bench.training_data import model_and_data
from genie.core.params import Params
from genie.data.supply import Place, batches, keep_data
from genie.data.windows import Batch
from genie.distributed.accelerator import make_accelerator
from genie.training.costs import Model, step_costs, training_params
from genie.training.step import TrainingStep

WARM_UP = 3
PHASES = ("data", "forward", "backward", "optimizer")


class Step:
    """Training of a model, in which each call is one step, timed by phase.

    Attributes:
        name: the model's.
        params: its parameters of training.
        device, mixed_precision, compiler: those of the accelerator.
        costs: operations and parameters of a step.
        frames: number of frames per batch.
        seconds: list of each phase's seconds over the calls.
        model: the model in training.
        dataset: its batches.
        optimizers: optimizers by name.
    """

    def __init__(self, name: Model, params: Params, folder: Path):
        self.name, self.params = name, training_params(name, params)
        self._accelerator = make_accelerator(params.runtime, training=True)
        self.device, self.mixed_precision = self._accelerator.device, self._accelerator.mixed_precision
        self.compiler = self._accelerator.state.dynamo_plugin.backend.value  # pyright: ignore[reportOptionalMemberAccess]
        self.costs = step_costs(name, params, bf16=self.mixed_precision == "bf16")
        self.frames = self.costs.frames
        self.seconds = defaultdict(list)
        self.model, self.dataset = model_and_data(name, params, folder, device=self.device)
        self.model.to(self.device)
        self._train = TrainingStep(self.model, self.params, self._accelerator)
        self.optimizers = self._train.optimizers
        self.draw_from(params.runtime.training_data)

    def __call__(self) -> None:
        with self._phase("data"):
            batch = self.draw()
        self._train(batch, timed=self._phase)

    def draw(self) -> Batch:
        """The next batch, on its way to the device."""
        return next(self._drawn)

    def draw_from(self, place: Literal["auto"] | Place) -> None:
        """Sets where the data of the batches are kept from now on."""
        keep_data(self.dataset, self.device, place)
        self._drawn = batches(self.dataset, self.device)

    def train(self, steps: int, batch: Batch | None = None) -> None:
        """Trains without waiting for the device, on the next batches or always on the given one."""
        for _ in range(steps):
            self._train(self.draw() if batch is None else batch)

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

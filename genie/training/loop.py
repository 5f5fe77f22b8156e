"""Training loop for any model whose `forward(batch)` returns `(loss, metrics)`."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from genie.core.params import TrainingParams
from genie.core.protocols import Tracker, Validation
from genie.data.supply import Place, batches, keep_data
from genie.data.windows import Windows
from genie.distributed.fsdp import gathered, load_optimizer, shard
from genie.distributed.progress import progress
from genie.training.resume import ResumeStore
from genie.training.step import TrainingStep

LOGS_PER_RUN = 100
VALIDATIONS_PER_RUN = 10
SAVING_SHARE = 0.01  # largest fraction of the time spent on saving resume state

Row = dict[str, float]


def train(
    model: nn.Module,
    dataset: Windows,
    params: TrainingParams,
    accelerator: Accelerator,
    tracker: Tracker,
    resume: ResumeStore,
    validate: Validation,
    place: Literal["auto"] | Place = "auto",
) -> list[Row]:
    """Trains `model` in place for `params.steps` steps, resuming from saved state if there is any.

    Args:
        model: `forward(batch) -> (loss, metrics)`, where metrics are scalar tensors.
        dataset: item `step` is the batch of that step, so that a run's data position is its step.
        params: batch size, steps, learning rate and so on.
        accelerator: device, precision, processes.
        tracker: receives the curves.
        resume: stores the state periodically, at the end and on Ctrl-C.
        validate: called periodically with the model in eval mode and the step; returns held-out metrics. Only the first
            of several processes validates and saves.
        place: where to keep the data, as for `keep_data`.

    Returns:
        The curve, one row per hundredth of the run: `step`, `lr`, the means since the last row of `train_loss`,
        `train_grad_norm` and the training metrics, and in some rows held-out metrics (`val_...`).

    Raises:
        FloatingPointError: the loss or the gradient norm is not finite; the saved state is from before.
        ResumeError: a saved state exists but cannot be read.
        WindowError: the batch cannot be divided equally among the processes.
    """
    torch.manual_seed(params.seed)  # the same in all processes: see genie.distributed.collectives
    dataset.take_share(accelerator.process_index, accelerator.num_processes)
    saved = _load(resume, accelerator)
    if saved:
        model.load_state_dict(saved["model"])
    mesh = accelerator.torch_device_mesh
    is_sharded = mesh is not None
    trained = shard(model, mesh) if is_sharded else model.to(accelerator.device)
    train_step = TrainingStep(trained, params, accelerator)
    means = _Means()
    parts = {"model": trained, "means": means, **train_step.optimizers}
    parts |= {f"{name}_lr": scheduler for name, scheduler in train_step.schedulers.items()}
    start, curve = _restore(saved, parts, tracker) if saved else (0, [])
    if start < params.steps:
        keep_data(dataset, accelerator.device, place)
    log_every = math.ceil(params.steps / LOGS_PER_RUN)
    validate_every = log_every * (LOGS_PER_RUN // VALIDATIONS_PER_RUN)
    clock, saves = _Clock(start), _Saves(start)

    steps = progress(name="train", total=params.steps, unit="step")
    steps.update(start)
    with _Interrupts(accelerator) as interrupts:
        for step, batch in enumerate(batches(dataset, accelerator.device, start), start=start + 1):
            means.add(train_step(batch))
            steps.update()

            if step % log_every == 0 or step == params.steps:
                means.check_finite(step)
                row = {"step": step, "lr": train_step.lr, **means.take("train_", accelerator)}
                samples_per_second = params.batch_size * clock.steps_per_second(step)
                speed = {"samples_per_second": samples_per_second, "saving_share": saves.share}
                if step % validate_every == 0 or step == params.steps:
                    if is_sharded:
                        _gather(trained, model, accelerator)
                    if accelerator.is_main_process:
                        with _validating(model, accelerator):
                            row |= {f"val_{name}": value for name, value in validate(model, step).items()}
                        clock = _Clock(step)
                curve.append(row)
                tracker.log_metrics(row | speed, step=step)
                steps.set_postfix(loss=f"{row['train_loss']:.4g}")

            if saves.are_due(step) or step == params.steps or interrupts.caught:
                means.check_finite(step)
                with saves.timed(step):
                    _save(resume, parts, tracker, accelerator, step, curve)
            if interrupts.caught:
                raise KeyboardInterrupt
    steps.close()
    if is_sharded:
        _gather(trained, model, accelerator)
    model.eval()
    return curve


class _Means:
    """Running means of scalar tensors, read only on request, because reading synchronises with the device."""

    def __init__(self):
        self._sums, self._count = {}, 0

    def add(self, values: dict[str, torch.Tensor]) -> None:
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value

    def take(self, prefix: str, accelerator: Accelerator) -> Row:
        """Returns the means since the last call, over all processes, and resets them."""
        totals = accelerator.reduce(torch.stack([total.float() for total in self._sums.values()]), "mean").tolist()  # pyright: ignore[reportAttributeAccessIssue]
        means = {prefix + name: total / self._count for name, total in zip(self._sums, totals, strict=True)}
        self._sums, self._count = {}, 0
        return means

    def check_finite(self, step: int) -> None:
        """Raises FloatingPointError if a loss or gradient norm since the last call of `take` was not finite."""
        for name, what in (("loss", "training loss"), ("grad_norm", "gradient's norm")):
            total = float(self._sums.get(name, 0))
            if not math.isfinite(total):
                raise FloatingPointError(
                    f"the {what} is {total} near step {step}: lower lr or grad_clip, or set runtime.precision to fp32"
                )

    def state_dict(self) -> dict:
        return {"sums": self._sums, "count": self._count}

    def load_state_dict(self, state: dict) -> None:
        self._sums, self._count = state["sums"], state["count"]


class _Clock:
    """Measures steps per second since its creation or the last query."""

    def __init__(self, step: int):
        self._step, self._time = step, time.monotonic()

    def steps_per_second(self, step: int) -> float:
        steps, seconds = step - self._step, time.monotonic() - self._time
        self._step, self._time = step, time.monotonic()
        return steps / seconds


class _Saves:
    """Schedules saves so that they take at most `SAVING_SHARE` of the time. The first process decides."""

    def __init__(self, step: int):
        self._step, self._time, self._next = step, time.monotonic(), step + 1
        self._start, self._seconds = self._time, 0.0

    @property
    def share(self) -> float:
        """Fraction of the time since creation that was spent on saving."""
        return self._seconds / (time.monotonic() - self._start)

    def are_due(self, step: int) -> bool:
        return step >= self._next

    @contextmanager
    def timed(self, step: int) -> Iterator[None]:
        """Times a save in its context and schedules the next one by its duration."""
        start = time.monotonic()
        seconds_a_step = (start - self._time) / max(1, step - self._step)
        yield
        seconds = time.monotonic() - start
        self._seconds += seconds
        [wait] = broadcast_object_list([math.ceil(seconds / SAVING_SHARE / seconds_a_step)])
        self._step, self._time, self._next = step, time.monotonic(), step + max(1, wait)


class _Interrupts:
    """Defers the first Ctrl-C until the current step is done and saved; a second one acts at once.

    With several processes it does nothing: each would be at a different step, and agreeing on one would require
    synchronising at every step.
    """

    def __init__(self, accelerator: Accelerator):
        self.caught = False
        self._catches = (
            accelerator.num_processes == 1
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )

    def __enter__(self) -> "_Interrupts":
        if self._catches:
            signal.signal(signal.SIGINT, self._catch)
        return self

    def __exit__(self, *_) -> None:
        if self._catches:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _catch(self, *_) -> None:
        self.caught = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _validating(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Eval mode, with the random state restored afterwards, because only one of several processes validates."""
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    model.eval()
    with accelerator.autocast(), torch.random.fork_rng(devices):
        yield
    model.train()


def _gather(sharded: nn.Module, model: nn.Module, accelerator: Accelerator) -> None:
    """Loads the gathered weights of the sharded model into `model` on the first process."""
    state = gathered(sharded.state_dict(), keep=accelerator.is_main_process)
    if accelerator.is_main_process:
        model.to(accelerator.device).load_state_dict(state)


def _save(
    resume: ResumeStore, parts: dict, tracker: Tracker, accelerator: Accelerator, step: int, curve: list[Row]
) -> None:
    keep = accelerator.is_main_process
    states = {name: gathered(part.state_dict(), keep=keep) for name, part in parts.items()}
    if not keep:
        return
    random_states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_states["cuda"] = torch.cuda.get_rng_state()
    resume.save({"step": step, "curve": curve, "run_id": tracker.run_id, "random": random_states, **states})


def _load(resume: ResumeStore, accelerator: Accelerator) -> dict | None:
    """Loads the saved state on the first process and broadcasts it to all."""
    [saved] = broadcast_object_list([resume.load() if accelerator.is_main_process else None])
    return saved


def _restore(saved: dict, parts: dict, tracker: Tracker) -> tuple[int, list[Row]]:
    """Restores all parts but the model, which is restored before it is sharded; returns the step and the curve."""
    for name, part in parts.items():
        if isinstance(part, torch.optim.Optimizer):
            load_optimizer(part, saved[name])
        elif name != "model":
            part.load_state_dict(saved[name])
    torch.set_rng_state(saved["random"]["cpu"])
    if "cuda" in saved["random"]:
        torch.cuda.set_rng_state(saved["random"]["cuda"])
    tracker.resume(saved["run_id"])
    return saved["step"], saved["curve"]

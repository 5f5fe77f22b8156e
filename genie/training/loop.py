"""The one training loop: any model whose `forward(batch)` returns `(loss, metrics)`."""

import math
import time
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import Dataset

from genie.data.windows import batches
from genie.params import TrainingParams
from genie.progress import progress
from genie.training.muon import Muon
from genie.training.resume import ResumeStore
from genie.training.tracking import Tracker

LOGS_PER_RUN = 100
VALIDATIONS_PER_RUN = 10
SECONDS_BETWEEN_SAVES = 60

Row = dict[str, float]
Validation = Callable[[nn.Module, int], dict[str, float]]


def train(
    model: nn.Module,
    dataset: Dataset,
    params: TrainingParams,
    accelerator: Accelerator,
    tracker: Tracker,
    resume: ResumeStore,
    validate: Validation,
) -> list[Row]:
    """Trains `model` in place for `params.steps` steps, going on from saved state where there is some.

    Args:
        model: `forward(batch) -> (loss, metrics)`, metrics being scalar tensors.
        dataset: item `step` is the batch of that step, so that a run's data position is its step; `in_memory` tells
            whether drawing it is cheap.
        params: batch size, steps, learning rate and so on.
        accelerator: device, precision, processes.
        tracker: where curves go.
        resume: where the state is saved, about once a minute and at the end.
        validate: called now and then with the model in eval mode and the step; returns held-out metrics.

    Returns:
        The curve, a row a hundredth of the run: `step`, `lr`, the means since the last row of `train_loss`,
        `train_grad_norm` and the training metrics, and now and then held-out metrics (`val_...`).

    Raises:
        FloatingPointError: the loss is not finite.
    """
    torch.manual_seed(params.seed)
    model.to(accelerator.device)
    optimizers = make_optimizers(model, params, accelerator.mixed_precision)
    schedulers = {
        name: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, params))
        for name, optimizer in optimizers.items()
    }
    parts = {"model": model, **optimizers, **{f"{name}_scheduler": part for name, part in schedulers.items()}}
    start, curve = _restore(resume, parts, tracker)
    wrapped, *wrapped_optimizers = accelerator.prepare(model, *optimizers.values())
    log_every = math.ceil(params.steps / LOGS_PER_RUN)
    validate_every = log_every * (LOGS_PER_RUN // VALIDATIONS_PER_RUN)
    means, clock, last_save = _Means(), _Clock(start), time.monotonic()

    wrapped.train()
    steps = progress(name="train", total=params.steps, unit="step")
    steps.update(start)
    # A worker takes time from the models' threads on a CPU: only what must be read from a file is worth one.
    drawn = batches(dataset, start, num_workers=0 if dataset.in_memory else 1)
    for step, batch in enumerate(drawn, start=start + 1):
        loss, metrics = wrapped(_to_device(batch, accelerator.device))
        accelerator.backward(loss)
        grad_norm = accelerator.clip_grad_norm_(wrapped.parameters(), params.grad_clip)
        for optimizer, scheduler in zip(wrapped_optimizers, schedulers.values(), strict=True):
            optimizer.step()
            scheduler.step()
        wrapped.zero_grad()
        means.add({"loss": loss.detach(), "grad_norm": grad_norm, **metrics})
        steps.update()

        if step % log_every == 0 or step == params.steps:
            row = {"step": step, "lr": schedulers["muon"].get_last_lr()[0], **means.take("train_")}
            if not math.isfinite(row["train_loss"]):
                raise FloatingPointError(
                    f"the training loss is {row['train_loss']} near step {step}: lower lr or grad_clip, "
                    "or set runtime.precision to fp32"
                )
            speed = {"samples_per_second": params.batch_size * clock.steps_per_second(step)}
            if step % validate_every == 0 or step == params.steps:
                wrapped.eval()
                with accelerator.autocast():
                    row |= {f"val_{name}": value for name, value in validate(model, step).items()}
                wrapped.train()
                clock = _Clock(step)
            curve.append(row)
            tracker.log_metrics(row | speed, step=step)
            steps.set_postfix(loss=f"{row['train_loss']:.4g}")

            if time.monotonic() - last_save > SECONDS_BETWEEN_SAVES or step == params.steps:
                _save(resume, parts, tracker, step, curve)
                last_save = time.monotonic()
    steps.close()
    model.eval()
    return curve


def make_optimizers(
    model: nn.Module, params: TrainingParams, mixed_precision: str = "no"
) -> dict[str, torch.optim.Optimizer]:
    """`muon` for the weights of layers, `adamw` for all else: embeddings, biases, gains.

    Args:
        model: whose parameters they move.
        params: learning rate and weight decay.
        mixed_precision: the accelerator's; `bf16` says that bfloat16 is fast here.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    weights = [layer.weight for layer in layers]
    known = {id(weight) for weight in weights}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    dtype = torch.bfloat16 if mixed_precision == "bf16" else torch.float32
    return {
        "muon": Muon(weights, lr=params.lr, weight_decay=params.weight_decay, dtype=dtype),
        "adamw": torch.optim.AdamW(others, lr=params.lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    }


def lr_factor(step: int, params: TrainingParams) -> float:
    """Share of the peak learning rate for the step after `step` others: linear warm-up, then half a cosine to 0."""
    if step < params.warmup_steps:
        return (step + 1) / params.warmup_steps
    done = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class _Means:
    """Running means of scalar tensors, read only when asked: reading waits for the device."""

    def __init__(self):
        self._sums, self._count = {}, 0

    def add(self, values: dict[str, torch.Tensor]) -> None:
        self._count += 1
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value

    def take(self, prefix: str) -> Row:
        """The means since the last call."""
        means = {prefix + name: float(total) / self._count for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class _Clock:
    """Steps a second since it was made or last asked."""

    def __init__(self, step: int):
        self._step, self._time = step, time.monotonic()

    def steps_per_second(self, step: int) -> float:
        steps, seconds = step - self._step, time.monotonic() - self._time
        self._step, self._time = step, time.monotonic()
        return steps / seconds


def _to_device(batch, device: torch.device):
    if isinstance(batch, dict):
        return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    return batch.to(device, non_blocking=True)


def _save(resume: ResumeStore, parts: dict, tracker: Tracker, step: int, curve: list[Row]) -> None:
    states = {name: part.state_dict() for name, part in parts.items()}
    random_states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random_states["cuda"] = torch.cuda.get_rng_state()
    resume.save({"step": step, "curve": curve, "run_id": tracker.run_id, "random": random_states, **states})


def _restore(resume: ResumeStore, parts: dict, tracker: Tracker) -> tuple[int, list[Row]]:
    state = resume.load()
    if state is None:
        return 0, []
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"]["cpu"])
    if "cuda" in state["random"]:
        torch.cuda.set_rng_state(state["random"]["cuda"])
    tracker.resume(state["run_id"])
    return state["step"], state["curve"]

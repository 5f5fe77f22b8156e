"""`genie plan`: estimates operations, hours and memory of training at a scale, and the disk space of its data."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, get_args

from genie.core.params import Params
from genie.core.paths import METRICS_FOLDER
from genie.training.costs import (
    TOKENS_A_FRAME,
    Model,
    StepCosts,
    section_of,
    si,
    step_costs,
    three_digits,
    training_params,
)

TOKEN_BYTES, ACTION_BYTES = 2, 1  # uint16 and uint8, as stored by `genie/data/caches.py`


class Speed(NamedTuple):
    """Speed of uncompiled training steps on a GPU: a step takes `overhead` plus its FLOPs over their rate.

    Attributes:
        overhead: seconds that a step spends on launching kernels, whatever its batch.
        utilisation: share of the speed of bf16 matrix products that the arithmetic of a step reaches.
    """

    overhead: float
    utilisation: float


# One H200 on 2026-11-27, at 790 TFLOP/s of products. Fitted to steps with their batch on the device: five sizes of the
# dynamics, one of the tokenizer, one of the latent action model of kind `pixels`, which the probe resembles. The other
# models are small; their overhead is the number of operations of a step times the 25 microseconds that one takes in the
# measured steps.
MEASURED_SPEEDS: dict[str, Speed] = {
    "tokenizer": Speed(0.0, 0.13),
    "probe": Speed(0.0, 0.2),
    "lam": Speed(0.009, 0.2),
    "motion": Speed(0.003, 0.2),
    "steering": Speed(0.003, 0.2),
    "dynamics": Speed(0.027, 0.124),
}


class PlanError(ValueError):
    """The requested plan is impossible; the message names the cause and the fix."""


@dataclass(frozen=True)
class ModelPlan:
    """Plan of the training of one model.

    Attributes:
        model: name of the model.
        costs: costs of one step, all on one device.
        steps: number of optimizer steps.
        flops: FLOPs of all steps on one device.
        utilisation: share of the peak that training reaches.
        hours: hours of all steps on all devices.
        bytes_alone: memory of a device that trains the model alone.
        bytes_ddp: memory per device if the devices share only the batch.
        bytes_fsdp: memory per device if the devices also share weights, gradients and optimizer state.
    """

    model: Model
    costs: StepCosts
    steps: int
    flops: int
    utilisation: float
    hours: float
    bytes_alone: int
    bytes_ddp: int
    bytes_fsdp: int


@dataclass(frozen=True)
class Plan:
    """Plan of all trainings at one scale, on a number of devices.

    Attributes:
        devices: number of devices that share each batch.
        peak: peak of each device, in TFLOP/s.
        utilisation: assumed share of the peak that training reaches; None: as measured on a GPU, by model.
        precision: fp32 or bf16.
        models: plans of the models, in the pipeline's order.
        hours: total hours of all trainings.
        frames: number of frames in all splits.
        raw_bytes: size of the frames as pixels.
        stored_bytes: size of the frames as stored, compressed.
        token_bytes: size of their tokens.
        action_bytes: size of their latent actions.
    """

    devices: int
    peak: float
    utilisation: float | None
    precision: str
    models: list[ModelPlan]
    hours: float
    frames: int
    raw_bytes: int
    stored_bytes: int
    token_bytes: int
    action_bytes: int


def make_plan(
    params: Params, bytes_per_frame: float, *, devices: int, peak: float, utilisation: float | None = None
) -> Plan:
    """Plans the pipeline's trainings.

    Args:
        params: params of the scale; precision `auto` counts as bf16, which it selects on a GPU that supports it.
        bytes_per_frame: size of a frame on disk, as measured by `collect`.
        devices: number of devices that share each batch.
        peak: peak of each device, in TFLOP/s.
        utilisation: share of the peak that training reaches; None: as measured, `MEASURED_SPEEDS`.

    Raises:
        PlanError: an argument is out of range, or a batch size is not divisible by the number of devices.
    """
    if devices < 1:
        raise PlanError(f"--devices {devices}: it takes at least one")
    if not 0 < peak < math.inf:
        raise PlanError(f"--peak {peak:g} must be above 0")
    if utilisation is not None and not 0 < utilisation <= 1:
        raise PlanError(f"--utilisation {utilisation:g} must be above 0 and at most 1")
    for model in get_args(Model):
        section, batch_size = section_of(model, params), training_params(model, params).batch_size
        if batch_size % devices:
            raise PlanError(
                f"--devices {devices}: {section}.batch_size {batch_size} does not divide by it; choose a divisor"
            )
    precision = "fp32" if params.runtime.precision == "fp32" else "bf16"
    models = []
    for model in get_args(Model):
        costs = step_costs(model, params, bf16=precision == "bf16")
        steps = training_params(model, params).steps
        state = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes
        activations = math.ceil(costs.activation_bytes / devices)
        # Each device runs the optimizer on all weights.
        step_flops = costs.model_flops / devices + costs.optimizer_flops
        speed = MEASURED_SPEEDS[model] if utilisation is None else Speed(0.0, utilisation)
        seconds = speed.overhead + step_flops / (peak * 1e12 * speed.utilisation)
        models.append(
            ModelPlan(
                model=model,
                costs=costs,
                steps=steps,
                flops=steps * (costs.model_flops + costs.optimizer_flops),
                utilisation=step_flops / (peak * 1e12 * seconds),
                hours=steps * seconds / 3600,
                bytes_alone=state + costs.activation_bytes,
                bytes_ddp=state + activations,
                bytes_fsdp=math.ceil(state / devices) + activations,
            )
        )
    frames = sum(count for _, count in params.collect.frames)
    return Plan(
        devices=devices,
        peak=peak,
        utilisation=utilisation,
        precision=precision,
        models=models,
        hours=sum(model.hours for model in models),
        frames=frames,
        raw_bytes=frames * math.prod(params.collect.frame_shape),
        stored_bytes=round(frames * bytes_per_frame),
        token_bytes=frames * TOKENS_A_FRAME * TOKEN_BYTES,
        action_bytes=frames * ACTION_BYTES,
    )


def measured_bytes_per_frame(folder: Path = METRICS_FOLDER) -> float:
    """Mean size of a frame on disk when frames were last collected.

    Raises:
        PlanError: the metrics of `collect` are missing or damaged.
    """
    path = folder / "collect.json"
    try:
        return float(json.loads(path.read_text())["bytes_per_frame"])
    except (OSError, ValueError, KeyError) as error:
        cause = "no such file" if isinstance(error, FileNotFoundError) else repr(error)
        raise PlanError(f"{path}: {cause}; the pipeline writes it: make repro") from None


def plan_json(plan: Plan) -> str:
    """The whole plan as JSON."""
    return json.dumps(asdict(plan), indent=2) + "\n"


def plan_tables(plan: Plan) -> str:
    """The plan in Markdown: its assumptions, and tables of the trainings and the data."""
    devices = "1 device" if plan.devices == 1 else f"{plan.devices} devices"
    used = f"of which {plan.utilisation:.0%} are used" if plan.utilisation else "used as measured on an H200"
    lines = [
        f"Training on {devices} of {three_digits(plan.peak)} TFLOP/s, {used}, in {plan.precision}:",
        "",
        "| model | parameters | frames a step | steps | FLOPs a step | by the optimizer | FLOPs in all | used | hours "
        "| memory a device, alone | DDP | FSDP |",
        f"| --- |{' ---: |' * 11}",
    ]
    for model in plan.models:
        costs = model.costs
        step_flops = costs.model_flops + costs.optimizer_flops
        cells = [
            model.model,
            si(costs.parameters),
            f"{costs.frames:,}",
            f"{model.steps:,}",
            si(step_flops),
            f"{costs.optimizer_flops / step_flops:.0%}",
            si(model.flops),
            f"{model.utilisation:.1%}",
            three_digits(model.hours),
            *(si(size, "B") for size in (model.bytes_alone, model.bytes_ddp, model.bytes_fsdp)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    parameters = sum(model.costs.parameters for model in plan.models)
    flops = sum(model.flops for model in plan.models)
    lines += [
        f"| all | {si(parameters)} |  |  |  |  | {si(flops)} |  | {three_digits(plan.hours)} |  |  |  |",
        "",
        "| frames | as pixels | stored | tokens | latent actions |",
        "| ---: | ---: | ---: | ---: | ---: |",
        f"| {plan.frames:,} | {si(plan.raw_bytes, 'B')} | {si(plan.stored_bytes, 'B')} | {si(plan.token_bytes, 'B')} "
        f"| {si(plan.action_bytes, 'B')} |",
    ]
    return "\n".join(lines) + "\n"

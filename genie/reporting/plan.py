"""`genie plan`: estimates operations, hours and memory of training at a scale, and the disk space of its data."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from genie.core.frames import FRAME_SHAPE
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
        hours: hours of all steps on all devices.
        bytes_alone: memory of a device that trains the model alone.
        bytes_ddp: memory per device if the devices share only the batch.
        bytes_fsdp: memory per device if the devices also share weights, gradients and optimizer state.
    """

    model: Model
    costs: StepCosts
    steps: int
    flops: int
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
        utilisation: share of the peak that training reaches.
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
    utilisation: float
    precision: str
    models: list[ModelPlan]
    hours: float
    frames: int
    raw_bytes: int
    stored_bytes: int
    token_bytes: int
    action_bytes: int


def make_plan(params: Params, bytes_per_frame: float, *, devices: int, peak: float, utilisation: float) -> Plan:
    """Plans the pipeline's trainings.

    Args:
        params: params of the scale; precision `auto` counts as bf16, which it selects on a GPU that supports it.
        bytes_per_frame: size of a frame on disk, as measured by `collect`.
        devices: number of devices that share each batch.
        peak: peak of each device, in TFLOP/s.
        utilisation: share of the peak that training reaches.

    Raises:
        PlanError: an argument is out of range, or a batch size is not divisible by the number of devices.
    """
    if devices < 1:
        raise PlanError(f"--devices {devices}: it takes at least one")
    if not (0 < peak < math.inf and 0 < utilisation <= 1):
        raise PlanError(f"--peak {peak:g} must be above 0 and --utilisation {utilisation:g} above 0 and at most 1")
    for model in get_args(Model):
        section, batch_size = section_of(model, params), training_params(model, params).batch_size
        if batch_size % devices:
            raise PlanError(
                f"--devices {devices}: {section}.batch_size {batch_size} does not divide by it; choose a divisor"
            )
    precision = "fp32" if params.runtime.precision == "fp32" else "bf16"
    flops_an_hour = peak * 1e12 * utilisation * 3600
    models = []
    for model in get_args(Model):
        costs = step_costs(model, params, bf16=precision == "bf16")
        steps = training_params(model, params).steps
        state = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes
        activations = math.ceil(costs.activation_bytes / devices)
        models.append(
            ModelPlan(
                model=model,
                costs=costs,
                steps=steps,
                flops=steps * (costs.model_flops + costs.optimizer_flops),
                # Each device runs the optimizer on all weights.
                hours=steps * (costs.model_flops / devices + costs.optimizer_flops) / flops_an_hour,
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
        raw_bytes=frames * math.prod(FRAME_SHAPE),
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
    lines = [
        f"Training on {devices} of {three_digits(plan.peak)} TFLOP/s, of which {plan.utilisation:.0%} are used, in "
        f"{plan.precision}:",
        "",
        "| model | parameters | frames a step | steps | FLOPs a step | by the optimizer | FLOPs in all | hours "
        "| memory a device, alone | DDP | FSDP |",
        f"| --- |{' ---: |' * 10}",
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
            three_digits(model.hours),
            *(si(size, "B") for size in (model.bytes_alone, model.bytes_ddp, model.bytes_fsdp)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    parameters = sum(model.costs.parameters for model in plan.models)
    flops = sum(model.flops for model in plan.models)
    lines += [
        f"| all | {si(parameters)} |  |  |  |  | {si(flops)} | {three_digits(plan.hours)} |  |  |  |",
        "",
        "| frames | as pixels | stored | tokens | latent actions |",
        "| ---: | ---: | ---: | ---: | ---: |",
        f"| {plan.frames:,} | {si(plan.raw_bytes, 'B')} | {si(plan.stored_bytes, 'B')} | {si(plan.token_bytes, 'B')} "
        f"| {si(plan.action_bytes, 'B')} |",
    ]
    return "\n".join(lines) + "\n"

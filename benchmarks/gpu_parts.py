"""What `benchmarks.gpu` measures. Each part is called in a process of its own with params, the folder of the data and
its own arguments, and returns a tree of plain values: milliseconds (`_ms`), MiB, shares of one."""

import os
import platform
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal, cast

import torch

from genie.bench.card import describe
from genie.bench.device_steps import measure_on_device, optimizer_seconds
from genie.bench.figures import Figure
from genie.bench.frame_rate import player
from genie.bench.inputs import TOKEN_FRAMES, collect_quietly, write_random_caches
from genie.bench.kernels import profile_steps, synchronising_lines
from genie.bench.machine import ceilings, matmul_flops_per_second, matrix_products
from genie.bench.peak import device_memory
from genie.bench.timed_step import PHASES, Step
from genie.bench.timing import clock_of, take_turns, wait_for
from genie.bench.training_data import places_of
from genie.bench.variants import attention_cases, compare, loss_case
from genie.core.params import Params, parse_params
from genie.core.protocols import NullTracker
from genie.data.shards import SPLITS
from genie.distributed.accelerator import make_accelerator
from genie.distributed.devices import resolve_device, resolve_precision
from genie.distributed.processes import num_cores, num_threads
from genie.play.opening import open_world
from genie.training.costs import Model

Tree = dict[str, Any]
Compiled = bool | Literal["graphs"]  # as `runtime.compile`

ROUNDS = 5
MILLION = 10**6
WORLDS = {"cpu": (1, 8), "cuda": (1, 8, 64), "mps": (1, 8, 64)}  # played at once
FRAMES = 8  # of one timed call
# Amounts of the pipeline that is run whole: enough to time stages that encode frames, too few to learn anything.
FEW_STEPS, FEW_FRAMES = 20, {"train": 32768, "val": 4096, "test": 8192}
FEW_CLIPS = {"num_clips": 64, "drift_clips": 4, "num_states": 64, "steered_states": 16}
STAGES = (
    "collect", "train_tokenizer", "tokenize", "train_probe", "train_lam", "label_actions", "train_motion",
    "train_steering", "train_dynamics", "evaluate",
)  # fmt: skip


def machine(params: Params, folder: Path) -> Tree:
    """What is measured on, and its ceilings."""
    device = resolve_device(params.runtime)
    found = {
        **describe(params),
        "device": device.type,
        "precision": resolve_precision(params.runtime, device),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cores": num_cores(),
    }
    if device.type == "cuda":
        found["memory_mib"] = torch.cuda.get_device_properties(device).total_memory / 2**20
    return found | _named(ceilings(device))


def collect(params: Params, folder: Path) -> Tree:
    """Records the frames that the other parts read."""
    start = perf_counter()
    collect_quietly(params.collect, params.collect.frames, folder / "frames", num_threads(params.runtime))
    seconds = perf_counter() - start
    frames = sum(getattr(params.collect.frames, split) for split in SPLITS)
    write_random_caches(params, folder, min(TOKEN_FRAMES, params.collect.frames.train))
    return {
        "frames": frames,
        "action_repeat": params.collect.action_repeat,
        "seconds": seconds,
        "frames_per_second": frames / seconds,
        "seconds_a_million": seconds * MILLION / frames,
    }


def train(params: Params, folder: Path, name: str, compiled: Compiled = False) -> Tree:
    """A step of a model's training: from each place where its frames can be kept, and by phase."""
    start = perf_counter()
    step = _step(params, folder, name, compiled)
    wait_for(step.device)
    built = perf_counter()
    step.warm_up()
    first_steps = perf_counter() - built
    flops = step.costs.model_flops  # of forward and backward, over the time of the whole step
    tree: Tree = {
        "parameters": step.costs.parameters,
        "batch_size": step.params.batch_size,
        "model_gflop": step.costs.model_flops / 1e9,
        "optimizer_gflop": step.costs.optimizer_flops / 1e9,
        "building_seconds": built - start,
        "first_steps_seconds": first_steps,
        **_named(device_memory(name, step.device)),
        "places": {},
    }
    products = matrix_products(step.device, step.mixed_precision)
    places = places_of(step.dataset, step.device)
    for place in places if not compiled else places[:1]:
        step.draw_from(place)
        seconds, figures = measure_on_device(step, products, ROUNDS)
        speed = matmul_flops_per_second(seconds)
        tree["places"][place] = {
            "trained_ms": 1000 * seconds["step"],
            "alone_ms": 1000 * seconds["alone"],
            "share_of_products": flops / seconds["step"] / speed,
            "share_of_products_alone": flops / seconds["alone"] / speed,
            **{name: value for name, value in _named(figures).items() if not name.endswith("seconds")},
        }
    tree["products_tflops"] = speed / 1e12
    tree |= {f"{phase}_ms": 1000 * median(step.seconds[phase]) for phase in PHASES if phase != "data"}
    return tree | {f"{part}_ms": 1000 * taken for part, taken in optimizer_seconds(step, ROUNDS).items()}


def profiled(params: Params, folder: Path, name: str) -> Tree:
    """The most expensive kernels of a step, and where the device is waited for."""
    step = _step(params, folder, name)
    step.warm_up()
    return {**profile_steps(step), "synchronising_lines": synchronising_lines(step)}


def attention(params: Params, folder: Path, compiled: bool = False) -> Tree:
    """Variants of the dynamics' attentions."""
    accelerator = make_accelerator(params.runtime)
    cases = attention_cases(params, accelerator.device)
    return {name: compare(case, accelerator.mixed_precision, compiled=compiled) for name, case in cases.items()}


def cross_entropy(params: Params, folder: Path, compiled: bool = False) -> Tree:
    """Variants of the dynamics' loss."""
    accelerator = make_accelerator(params.runtime)
    return compare(loss_case(params, accelerator.device), accelerator.mixed_precision, compiled=compiled)


def stages(params: Params, folder: Path) -> Tree:
    """Seconds of each stage of a pipeline whose models are trained for a few steps."""
    tree = params.model_dump()
    tree["collect"]["frames"] = {
        split: min(count, tree["collect"]["frames"]["train"]) for split, count in FEW_FRAMES.items()
    }
    few = {"steps": FEW_STEPS, "warmup_steps": min(2, FEW_STEPS)}
    for section in ("tokenizer", "probe", "motion", "steering", "dynamics"):
        tree[section] |= few
    tree["lam"]["gate_min_perplexity"] = 0.0
    tree["lam"]["surprise"] |= {**few, "expectation_steps": FEW_STEPS // 2, "gate_min_information": -1e9}
    tree["lam"]["pixels"] |= {**few, "gate_min_gain_db": -1e9}
    tree["evaluate"] |= {name: min(count, tree["evaluate"][name]) for name, count in FEW_CLIPS.items()}
    few_params = parse_params(tree)
    seconds, here = {}, Path.cwd()
    project = folder / "project"
    project.mkdir()
    os.chdir(project)  # stages write to data/ here
    try:
        for stage in STAGES:
            start = perf_counter()
            import_module(f"stages.{stage}").main(few_params, NullTracker())
            wait_for(resolve_device(params.runtime))
            seconds[stage] = perf_counter() - start
    finally:
        os.chdir(here)
    frames = sum(getattr(few_params.collect.frames, split) for split in SPLITS)
    return {
        "frames": frames,
        "tokenize_seconds_a_100k": seconds["tokenize"] * 1e5 / frames,
        "label_actions_seconds_a_100k": seconds["label_actions"] * 1e5 / frames,
        "seconds": seconds,
    }


def play(params: Params, folder: Path) -> Tree:
    """Frames per second of the shipped world, summed over worlds that are played at once."""
    on_cpu = params.model_copy(update={"runtime": params.runtime.model_copy(update={"device": "cpu"})})
    device = resolve_device(params.runtime)
    rates = {f"{device.type}_fp32": _play(params), f"{device.type}_bf16": _play(params, bf16=True)}
    return rates if device.type == "cpu" else rates | {"cpu_fp32": _play(on_cpu)}


def _play(params: Params, bf16: bool = False) -> Tree:
    world, rates = open_world(None, params), {}

    def several(step: Callable[[], object], frames: int) -> None:
        with torch.autocast(world.device.type, torch.bfloat16, enabled=bf16):
            for _ in range(frames):
                step()

    for batch in WORLDS[world.device.type]:
        step = player(world, batch, world.context_frames + 1)
        sides = {"play": partial(several, step, FRAMES)}
        rates[f"worlds_{batch}"] = batch * FRAMES / take_turns(sides, ROUNDS, clock_of(world.device))["play"]
    return rates


def _step(params: Params, folder: Path, name: str, compiled: Compiled = False) -> Step:
    """Training of a model; `lam` and `pixel_lam` are the two kinds of latent action model.

    Raises:
        ValueError: there is no compiler.
    """
    model = cast(Model, "lam" if name == "pixel_lam" else name)
    kind = "pixels" if name == "pixel_lam" else "surprise"
    changes = {
        "runtime": params.runtime.model_copy(update={"compile": compiled}),
        "lam": params.lam.model_copy(update={"kind": kind}),
    }
    step = Step(model, params.model_copy(update=changes), folder)
    if compiled and step.compiler == "NO":
        raise ValueError("no compiler works here")
    return step


def _named(figures: list[Figure]) -> dict[str, float]:
    """Values by their names without the part's."""
    return {figure.name.partition(".")[2]: figure.value for figure in figures}

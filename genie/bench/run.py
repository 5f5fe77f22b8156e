"""`genie bench`: measures each part in its own process, so that no part affects another's memory or speed."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from genie.bench.figures import Figure
from genie.core.frames import FRAME_SHAPE
from genie.core.params import Params
from genie.distributed.progress import progress

# Calls of each part: a function of a module in this folder, and its arguments after params and the data folder.
PARTS = {
    "machine": [("machine.measure",)],
    "collect": [("bare_simulator.measure",)],
    "reading": [("reading.measure",)],
    "tokenizer": [
        ("training_phases.measure", "tokenizer"),
        ("training_phases.measure_growth", "tokenizer", "width"),
        ("training_phases.measure_growth", "tokenizer", "batch"),
    ],
    "lam": [
        ("training_phases.measure", "lam"),
        ("training_phases.measure_growth", "lam", "width"),
        ("training_phases.measure_growth", "lam", "batch"),
    ],
    "dynamics": [
        ("training_phases.measure", "dynamics"),
        ("training_phases.measure_growth", "dynamics", "width"),
        ("training_phases.measure_growth", "dynamics", "batch"),
        ("training_phases.measure_growth", "dynamics", "context"),
    ],
    "sampling": [("frame_rate.measure",)],
}


def bench(params: Params, only: Sequence[str] = (), world: str | None = None) -> list[Figure]:
    """Measures the named parts, or all parts.

    Args:
        world: world that sampling plays, as for `open_world`; None is the shipped one.

    Raises:
        ValueError: a part is unknown, or the machine is too busy to measure.
        PretrainedError, CheckpointError, RuntimeUnavailableError: the world is unavailable.
    """
    unknown = set(only) - set(PARTS)
    if unknown:
        raise ValueError(f"no part {', '.join(sorted(unknown))} to measure (there: {', '.join(PARTS)})")
    calls = [(part, call) for part in PARTS if not only or part in only for call in PARTS[part]]
    # The simulator supplies the frames, whatever the pipeline's source.
    played = params.collect.model_copy(update={"source": "simulator", "frame_size": FRAME_SHAPE[0]})
    params = params.model_copy(update={"collect": played})
    figures = []
    with TemporaryDirectory() as folder, progress(name="bench", total=len(calls) + 1, unit="part") as bar:
        bar.set_postfix_str("data")
        if any(part == "sampling" for part, _ in calls):
            _in_process("frame_rate.check", params, world)  # raises its errors before minutes are spent
        _in_process("inputs.write_data", params, Path(folder))
        for part, (function, *more) in calls:
            bar.update()
            bar.set_postfix_str(part)
            opened = [world] if part == "sampling" else []
            figures += _in_process(function, params, Path(folder), *more, *opened)
        bar.update()
    return figures


def describe_card(params: Params) -> dict[str, str]:
    """Names of the NVIDIA card that is measured and of its driver; empty if there is none."""
    return _in_process("card.describe", params)


def _in_process(function: str, *arguments):
    """Calls a function of this folder in a new process, which starts small since this one never imports torch."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_call, function, arguments).result()


def _call(function: str, arguments: tuple):
    module, _, name = function.partition(".")
    return getattr(import_module(f"genie.bench.{module}"), name)(*arguments)

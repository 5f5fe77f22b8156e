"""Measures on one GPU, within minutes, what the project wants to know of it; the results are one JSON file.

    python -m benchmarks.gpu --out gpu.json                     # all parts, in order of importance, for 8 minutes
    python -m benchmarks.gpu --only machine dynamics            # some of them

Each part runs in its own process. A part that fails leaves its error in the JSON and the next one starts; one that is
running when the time is over is ended. The file is written after every part. It also runs without a GPU, where it
serves to try it. Nothing is written but the file: data lies in a temporary folder.
"""

import argparse
import json
import multiprocessing
import os
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, TimeoutError
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from genie.core.files import replacing
from genie.core.params import Params, SplitCounts
from genie.core.scales import load_scale

FRAMES, HELD_OUT = 200_000, 4096  # frames in `train`, and in each other split
MODELS = ("dynamics", "tokenizer", "pixel_lam", "lam", "probe", "motion", "steering")
# Function of `benchmarks.gpu_parts` and its arguments after params and folder, in order of importance.
PARTS: dict[str, tuple] = {
    "machine": ("machine",),
    "collect": ("collect",),
    **{model: ("train", model) for model in MODELS[:3]},
    "dynamics_profile": ("profiled", "dynamics"),
    "tokenizer_profile": ("profiled", "tokenizer"),
    "attention": ("attention",),
    "cross_entropy": ("cross_entropy",),
    **{model: ("train", model) for model in MODELS[3:]},
    "play": ("play",),
    **{f"{model}_compiled": ("train", model, True) for model in MODELS[:2]},
    **{f"{model}_graphs": ("train", model, "graphs") for model in MODELS[:2]},
    "attention_compiled": ("attention", True),
    "stages": ("stages",),
    "cross_entropy_compiled": ("cross_entropy", True),
    **{f"{model}_compiled": ("train", model, True) for model in MODELS[2:]},
    **{f"{model}_graphs": ("train", model, "graphs") for model in MODELS[2:]},
}
WITHOUT_DATA = {"machine", "attention", "cross_entropy", "stages", "play"}  # functions

Tree = dict[str, Any]


def run(params: Params, scale: str, out: Path, minutes: float, only: Sequence[str] = (), frames: int = FRAMES) -> Tree:
    """Measures parts, until the time is over, and writes their results to `out` after each.

    Args:
        only: names in `PARTS`, or none for all of them; `collect` is added if they need its frames.
        frames: number of frames that models are trained on.

    Returns:
        Results by part; of a part that failed or was not reached, `{"error": ...}`.
    """
    wanted = set(only) or set(PARTS)
    if any(PARTS[part][0] not in WITHOUT_DATA for part in wanted):
        wanted.add("collect")
    counts = SplitCounts(train=frames, val=min(frames, HELD_OUT), test=min(frames, HELD_OUT))
    params = params.model_copy(update={"collect": params.collect.model_copy(update={"frames": counts})})
    start, results = monotonic(), Tree(scale=scale)
    with TemporaryDirectory() as folder:
        # Else what an earlier run compiled would be found again.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/inductor"
        for part in (part for part in PARTS if part in wanted):
            began = monotonic()
            left = 60 * minutes - (began - start)
            results[part] = measured(part, params, Path(folder), left) if left > 0 else {"error": "no time left"}
            results[part]["part_seconds"] = monotonic() - began
            if part.endswith(("_compiled", "_graphs")):
                results[part] |= pays_after(results.get(part.rpartition("_")[0], {}), results[part])
            with replacing(out) as temporary:
                temporary.write_text(json.dumps(rounded(results), indent=2) + "\n")
            print(f"{part}: {results[part].get('error') or 'done'}, {monotonic() - start:.0f} s", file=sys.stderr)
    return results


def measured(part: str, params: Params, folder: Path, seconds: float) -> Tree:
    """The results of a part, or its error: any, since the other parts shall be measured."""
    try:
        return in_process(PARTS[part], params, folder, seconds)
    except Exception as error:
        return fault(error)


def in_process(part: tuple, params: Params, folder: Path, seconds: float) -> Tree:
    """Calls a part in a new process, which is ended when the time is over."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(call, part, params, folder).result(timeout=seconds)
        except TimeoutError:
            for child in multiprocessing.active_children():
                child.kill()
            raise ValueError("ended, as the time was over") from None


def call(part: tuple, params: Params, folder: Path) -> Tree:
    function, *arguments = part
    try:
        # By name, since importing torch takes seconds, which the process that only waits need not spend.
        return getattr(import_module("benchmarks.gpu_parts"), function)(params, folder, *arguments)
    except Exception as error:  # not raised, since not every exception can be sent to another process
        traceback.print_exc()
        return fault(error)


def fault(error: Exception) -> Tree:
    return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def pays_after(plain: Tree, compiled: Tree) -> Tree:
    """Seconds that compiling a model took, and the steps after which it has saved them."""
    if "places" not in plain or "places" not in compiled:
        return {}
    seconds = compiled["first_steps_seconds"] - plain["first_steps_seconds"]
    before, after = (next(iter(tree["places"].values()))["trained_ms"] for tree in (plain, compiled))
    saved = (before - after) / 1000
    return {"compiling_seconds": seconds, "pays_after_steps": round(seconds / saved) if saved > 0 else None}


def rounded(value: Any) -> Any:
    """The tree with four significant digits in its numbers."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def table(results: Tree) -> str:
    """Steps of training, one line for each place, and the numbers of the other parts."""
    columns = ("trained_ms", "alone_ms", "waiting_share", "share_of_products", "peak_device_memory", "joules")
    row = "{:<24} {:<8}" + " {:>18}" * len(columns)
    lines, others = [row.format("training", "place", *columns)], []
    for part, tree in rounded(results).items():
        if not isinstance(tree, dict) or "error" in tree:
            others.append(f"{part}: {tree['error'] if isinstance(tree, dict) else tree}")
        elif "places" in tree:
            for place, figures in tree["places"].items():
                lines.append(row.format(part, place, *((tree | figures).get(column, "") for column in columns)))
        else:
            others += [f"{part}: {line}" for line in flat({k: v for k, v in tree.items() if k != "kernels"})]
    return "\n".join([*lines, "", *others])


def flat(tree: Tree) -> list[str]:
    """One line for the plain values of a tree, and one for each of its branches."""
    plain = [f"{key} {value}" for key, value in tree.items() if not isinstance(value, dict)]
    branches = [f"{key}: {line}" for key, branch in tree.items() if isinstance(branch, dict) for line in flat(branch)]
    return ([", ".join(plain)] if plain else []) + branches


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="gpu", help="file in scales/ that sets sizes and batches (default: gpu)")
    parser.add_argument("--minutes", type=float, default=8, help="time after which all ends (default: 8)")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"frames to collect (default: {FRAMES})")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file to write (default: gpu.json)")
    told = f"parts to measure, of {', '.join(PARTS)} (default: all)"
    parser.add_argument("--only", nargs="+", default=[], choices=PARTS, metavar="PART", help=told)
    given = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    params = load_scale(given.scale)[1]
    results = run(params, given.scale, given.out, given.minutes, given.only, given.frames)
    print(table(results))


if __name__ == "__main__":
    main()

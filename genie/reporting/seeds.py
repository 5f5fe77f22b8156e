"""`genie seeds`: mean and spread of the metrics over runs that differ only by their seeds."""

import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genie.core.params import PixelLamParams, SurpriseLamParams
from genie.core.paths import METRICS_FOLDER
from genie.core.yaml_files import parse_yaml
from genie.pipeline.gate import GateError, check_gate
from genie.reporting.results import ResultsError

# Files of `data/metrics/` that depend on the seeds that are varied.
FILES = ("lam", "motion", "steering", "dynamics", "evaluate")


@dataclass(frozen=True)
class Run:
    """One run of the pipeline.

    Attributes:
        seed: seed of the LAM.
        metrics: metrics by file and key.
    """

    seed: int
    metrics: Mapping[str, Mapping[str, float]]


def read_run(revision: str) -> Run:
    """Reads a run from a git revision, such as `HEAD` or an experiment's `refs/exps/...`.

    Raises:
        ResultsError: the revision does not exist, or lacks metrics.
    """
    metrics = {}
    for name in FILES:
        path = (METRICS_FOLDER / f"{name}.json").as_posix()
        try:
            metrics[name] = json.loads(_read_at(revision, path))
        except json.JSONDecodeError as error:
            raise ResultsError(f"{revision}: {path} is no JSON ({error}); run it again: make seeds") from None
    return Run(parse_yaml(_read_at(revision, "params.yaml"), revision)["lam"]["seed"], metrics)


def summarise(runs: Sequence[Run], params: SurpriseLamParams | PixelLamParams) -> dict:
    """Summarises the metrics of at least two runs with different seeds.

    Args:
        params: LAM params, whose gate defines a collapse.

    Returns:
        `seeds`; `collapsed`, the number of runs whose latent actions the gate rejects; and for each file and key
        `mean`, `std` (of a sample: n - 1) and `values`, in the order of the seeds.

    Raises:
        ResultsError: there are fewer than two runs, or two have the same seed.
    """
    seeds = [run.seed for run in runs]
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ResultsError(f"seeds {seeds} are not two or more different ones, so they have no spread; try: make seeds")
    summary: dict = {"seeds": seeds, "collapsed": sum(_has_collapsed(run, params) for run in runs)}
    for name in FILES:
        keys = [key for key in runs[0].metrics[name] if all(key in run.metrics[name] for run in runs)]
        summary[name] = {key: _spread([run.metrics[name][key] for run in runs]) for key in sorted(keys)}
    return summary


def _has_collapsed(run: Run, params: SurpriseLamParams | PixelLamParams) -> bool:
    try:
        check_gate(run.metrics["lam"], params)
    except GateError:
        return True
    return False


def _spread(values: list[float]) -> dict[str, float | list[float]]:
    mean, std = statistics.fmean(values), statistics.stdev(values)
    return {"mean": float(f"{mean:.6g}"), "std": float(f"{std:.6g}"), "values": values}


def _read_at(revision: str, path: str) -> str:
    read = subprocess.run(["git", "show", f"{revision}:{path}"], capture_output=True, text=True, check=False)
    if read.returncode != 0:
        raise ResultsError(f"{revision}: holds no {path}; its run failed or never was, start it anew: make seeds")
    return read.stdout

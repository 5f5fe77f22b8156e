"""What every DVC stage shares: the way it starts and ends, and the way it writes its metrics."""

from collections.abc import Callable
from contextlib import nullcontext

from genie.core.params import Params, load_params
from genie.core.protocols import NullTracker, Tracker
from genie.distributed.faults import faults_in_one_line
from genie.distributed.launch import is_launched, launch
from genie.distributed.processes import rank
from genie.pipeline.mlflow_runs import open_tracker


def run_stage(name: str, main: Callable[[Params, Tracker], None], *, in_processes: bool = False) -> None:
    """Runs `main(params, tracker)` with the working directory's `params.yaml`, as one run in MLflow.

    Args:
        name: the stage's, and of its module in `stages`.
        main: what it does.
        in_processes: whether `main` knows how to share its work; it runs in `runtime.processes` of them then, the first
            of which alone is tracked.
    """
    with faults_in_one_line(name):
        params = load_params()
        if name.startswith("train_") and not is_launched():
            from genie.training.memory_budget import (
                check_memory,  # here, since torch takes seconds that `genie --help` need not
            )

            check_memory(name.removeprefix("train_"), params)
        if in_processes and params.runtime.processes > 1 and not is_launched():
            launch(f"stages.{name}", params.runtime)
            return
        with open_tracker(name, params) if rank() == 0 else nullcontext(NullTracker()) as tracker:
            main(params, tracker)

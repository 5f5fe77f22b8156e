"""How every DVC stage starts and ends."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from genie.core.params import Params, load_params
from genie.core.protocols import NullTracker, Tracker
from genie.distributed.faults import faults_in_one_line
from genie.distributed.launch import is_launched, launch
from genie.distributed.processes import num_threads, rank
from genie.pipeline.mlflow_runs import open_tracker

if TYPE_CHECKING:
    from genie.training.costs import Model


def run_stage(
    name: str,
    main: Callable[[Params, Tracker], None],
    *,
    in_processes: bool = False,
    on_device: bool = True,
    trains: "Model | None" = None,
) -> None:
    """Runs `main(params, tracker)` with the working directory's `params.yaml`, as one run in MLflow.

    Args:
        name: of the stage, and of its module in `stages`.
        main: what the stage does.
        in_processes: whether `main` can share its work; it then runs in `runtime.processes` processes, of which only
            the first is tracked.
        on_device: whether it computes with torch.
        trains: the model that it trains, whose memory and data are checked first.
    """
    with faults_in_one_line(name):
        params = load_params()
        if in_processes and params.runtime.processes > 1 and not is_launched():
            launch(f"stages.{name}", params.runtime)
            return
        if rank() > 0:
            main(params, NullTracker())
            return
        if trains is not None:
            # Here, since torch takes seconds to import, which `collect` need not wait for.
            from genie.pipeline.short_lives import warn_of_short_lives
            from genie.training.memory_budget import check_memory

            check_memory(trains, params)
            warn_of_short_lives(params)
        print(f"{name}: {_machine(params, on_device)}", file=sys.stderr)
        with open_tracker(name, params) as tracker:
            main(params, tracker)


def _machine(params: Params, on_device: bool) -> str:
    if not on_device:
        return f"{num_threads(params.runtime)} threads"
    from genie.distributed.devices import describe_device

    return describe_device(params.runtime)

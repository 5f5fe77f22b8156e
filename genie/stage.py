"""What every DVC stage shares: the way it starts and ends, and the way it writes its metrics."""

import csv
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from genie.launch import LOST, is_launched, is_loss_of_others, launch, leave_fault
from genie.params import Params, load_params
from genie.processes import rank
from genie.training.tracking import NullTracker, Tracker, open_tracker

METRICS_FOLDER = Path("data/metrics")
CURVES_FOLDER = Path("data/curves")


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
            from genie.budget import check_memory  # here, since torch takes seconds that `genie --help` need not

            check_memory(name.removeprefix("train_"), params)
        if in_processes and params.runtime.processes > 1 and not is_launched():
            launch(f"stages.{name}", params.runtime)
            return
        with open_tracker(name, params) if rank() == 0 else nullcontext(NullTracker()) as tracker:
            main(params, tracker)


@contextmanager
def faults_in_one_line(program: str) -> Iterator[None]:
    """Ends the process with one line on stderr, and exit code 1, on a fault that the user can mend.

    Those are ValueError (and so ParamsError), OSError and FloatingPointError (a non-finite loss). Ctrl-C ends
    as one line and 130. Any other exception is ours and keeps its traceback; with `GENIE_TRACEBACK=1` every
    fault does.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not is_launched():
            print(f"{program}: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as fault:
        if os.environ.get("GENIE_TRACEBACK") == "1":
            raise
        if not leave_fault(_describe(fault)):
            print(f"{program}: {_describe(fault)}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as fault:
        if not is_loss_of_others(fault):
            raise
        if not leave_fault(LOST):
            print(f"{program}: {LOST}; run the same command again to continue", file=sys.stderr)
        sys.exit(1)


def write_metrics(name: str, metrics: Mapping[str, float]) -> None:
    """Writes `data/metrics/<name>.json`: flat, keys sorted, floats with six significant digits, in one move.

    Raises:
        ValueError: a value is not finite; nothing is written then.
    """
    write_json(name, {key: _round(key, value) for key, value in sorted(metrics.items())})


def write_json(name: str, tree: Mapping) -> None:
    """Writes `data/metrics/<name>.json` as it is, in one move."""
    METRICS_FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = METRICS_FOLDER / f".{name}.json"
    unfinished.write_text(json.dumps(tree, indent=2) + "\n")
    unfinished.replace(METRICS_FOLDER / f"{name}.json")


def _describe(fault: Exception) -> str:
    """The fault in one line that also says what to do where its own message does not."""
    message = " ".join(str(fault).split()) or type(fault).__name__
    if isinstance(fault, OSError) and "No space left on device" in message:
        return f"the disk is full ({message}); free some space and run the same command again"
    return message


def write_curve(name: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes `data/curves/<name>.csv`, in one move; a column that a row lacks stays empty there."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    CURVES_FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = CURVES_FOLDER / f".{name}.csv"
    with unfinished.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(CURVES_FOLDER / f"{name}.csv")


def _round(key: str, value: float) -> float | int:
    value = value.item() if hasattr(value, "item") else value  # numpy and torch scalars
    if not math.isfinite(value):
        raise ValueError(f"metric {key} is {value}, which says that the model or its data is broken")
    return value if isinstance(value, int) else float(f"{value:.6g}")

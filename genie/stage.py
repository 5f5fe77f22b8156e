"""What every DVC stage shares: the way it starts and ends, and the way it writes its metrics."""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from genie.params import Params, load_params
from genie.training.tracking import Tracker, open_tracker

USER_FAULTS = (ValueError, OSError, FloatingPointError)
METRICS_FOLDER = Path("data/metrics")


def run_stage(name: str, main: Callable[[Params, Tracker], None]) -> None:
    """Runs `main(params, tracker)` with the working directory's `params.yaml`; exits 1 on a user's fault.

    A fault the user can mend (ParamsError and any other ValueError, OSError, a non-finite loss) ends as one
    line on stderr and exit code 1, Ctrl-C as one line and 130; any other exception is ours and keeps its
    traceback. `GENIE_TRACEBACK=1` shows the traceback of faults too.
    """
    try:
        params = load_params()
        with open_tracker(name, params) as tracker:
            main(params, tracker)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    except USER_FAULTS as fault:
        if os.environ.get("GENIE_TRACEBACK") == "1":
            raise
        print(f"{name}: {describe_fault(fault)}", file=sys.stderr)
        sys.exit(1)


def describe_fault(fault: Exception) -> str:
    """The fault in one line that also says what to do where its own message does not."""
    message = " ".join(str(fault).split()) or type(fault).__name__
    if isinstance(fault, OSError) and "No space left on device" in message:
        return f"the disk is full ({message}); free some space and run the same command again"
    return message


def write_metrics(name: str, metrics: Mapping[str, float]) -> None:
    """Writes `data/metrics/<name>.json`: flat, keys sorted, floats with six significant digits, in one move.

    Raises:
        ValueError: a value is not finite; nothing is written then.
    """
    rounded = {key: _round(key, value) for key, value in sorted(metrics.items())}
    METRICS_FOLDER.mkdir(parents=True, exist_ok=True)
    unfinished = METRICS_FOLDER / f".{name}.json"
    unfinished.write_text(json.dumps(rounded, indent=2) + "\n")
    unfinished.replace(METRICS_FOLDER / f"{name}.json")


def _round(key: str, value: float) -> float | int:
    value = value.item() if hasattr(value, "item") else value  # numpy and torch scalars
    if not math.isfinite(value):
        raise ValueError(f"metric {key} is {value}, which says that the model or its data is broken")
    return value if isinstance(value, int) else float(f"{value:.6g}")

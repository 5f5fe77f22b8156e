"""Launches a stage in `runtime.processes` processes, which find each other by torchrun's environment variables."""

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from genie.core.params import RuntimeParams
from genie.distributed.processes import num_threads

LOST = "lost the other processes"
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # names the file in which a process leaves its error for its launcher


class ProcessError(ValueError):
    """A process of a stage failed; the message is its own, or says how it ended."""


def is_launched() -> bool:
    """Whether this process was started by `launch` or `torchrun`."""
    return "LOCAL_RANK" in os.environ


def leave_fault(line: str) -> bool:
    """Leaves an error message for the launcher, which reports it once, knowing how the other processes ended.

    Returns:
        False if no launcher asked for it; the caller must then report it.
    """
    if ERROR_FILE not in os.environ:
        return False
    Path(os.environ[ERROR_FILE]).write_text(json.dumps({"message": line, "timestamp": int(time.time())}))
    return True


def is_loss_of_others(fault: Exception) -> bool:
    """Whether an error only reports that another process is gone."""
    return is_launched() and any(
        sign in str(fault) for sign in ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
    )


def launch(module: str, runtime: RuntimeParams) -> None:
    """Runs `python -m module` in several processes on this machine, until all have ended.

    Raises:
        ProcessError: one failed; the others were terminated.
        KeyboardInterrupt: on Ctrl-C, once all have ended.
    """
    # Imported here, because torch takes seconds that `genie --help` does not need.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # its errors are raised below
    os.environ["OMP_NUM_THREADS"] = str(max(1, num_threads(runtime) // runtime.processes))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=runtime.processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", module)
    except SignalException as caught:
        if caught.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise ProcessError(f"ended by {signal.Signals(caught.sigval).name}") from None
    except ChildFailedError as error:
        # Processes that only lost the others, or were terminated with them, are not the cause, even if first to fail.
        failures = error.failures.items()
        rank, failure = min(failures, key=lambda item: (_is_consequence(item[1]), item[0]))
        if failure.exitcode < 0:
            cause = f"was killed ({failure.signal_name()}); run the same command again to continue"
        elif Path(failure.error_file).is_file():
            cause = failure.message
        else:
            cause = f"ended with exit code {failure.exitcode}"
        raise ProcessError(f"process {rank} of {runtime.processes}: {cause}") from None


def _is_consequence(failure) -> bool:
    return failure.message == LOST or failure.exitcode == -signal.SIGTERM

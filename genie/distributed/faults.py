"""Error exit of a program: one line, printed once, whichever of several processes failed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from genie.distributed.launch import LOST, is_launched, is_loss_of_others, leave_fault


@contextmanager
def faults_in_one_line(program: str) -> Iterator[None]:
    """Ends the process with one line on stderr and exit code 1 on an error that the user can fix.

    Such errors are ValueError (including ParamsError), OSError and FloatingPointError (a non-finite loss). Ctrl-C ends
    the process with one line and exit code 130. Any other exception is a bug and keeps its traceback; with
    `GENIE_TRACEBACK=1` the user's errors keep it too.
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


def _describe(fault: Exception) -> str:
    """Describes the error in one line, with a fix if its own message lacks one."""
    message = " ".join(str(fault).split()) or type(fault).__name__
    if isinstance(fault, OSError) and "No space left on device" in message:
        return f"the disk is full ({message}); free some space and run the same command again"
    return message

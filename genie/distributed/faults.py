"""How a program ends on a fault: in one line, told once, whichever of several processes met it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from genie.distributed.launch import LOST, is_launched, is_loss_of_others, leave_fault


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


def _describe(fault: Exception) -> str:
    """The fault in one line that also says what to do where its own message does not."""
    message = " ".join(str(fault).split()) or type(fault).__name__
    if isinstance(fault, OSError) and "No space left on device" in message:
        return f"the disk is full ({message}); free some space and run the same command again"
    return message

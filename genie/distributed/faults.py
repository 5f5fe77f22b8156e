"""Error exit of a program: one line, printed once, whichever of several processes failed."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from genie.distributed.device_faults import describe_device_fault
from genie.distributed.launch import LOST, is_launched, is_loss_of_others, leave_fault


@contextmanager
def faults_in_one_line(program: str) -> Iterator[None]:
    """Ends the process with one line on stderr and exit code 1 on an error that the user can fix.

    Such errors are ValueError (including ParamsError), OSError, FloatingPointError (a non-finite loss) and those of
    `genie.distributed.device_faults`, such as out of memory. Ctrl-C ends the process with one line and exit code 130.
    Any other exception is a bug and keeps its traceback; with `GENIE_TRACEBACK=1` the user's errors keep it too.
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
        _end(program, _describe(fault))
    except (RuntimeError, MemoryError) as fault:
        if is_loss_of_others(fault):
            _end(program, LOST, "; run the same command again to continue")
        line = describe_device_fault(fault, program)
        if line is None or os.environ.get("GENIE_TRACEBACK") == "1":
            raise
        _end(program, line)


def _end(program: str, line: str, hint: str = "") -> NoReturn:
    """Ends the process with the line, which its launcher prints if there is one, and otherwise this process."""
    if not leave_fault(line):
        print(f"{program}: {line}{hint}", file=sys.stderr)
    sys.exit(1)


def _describe(fault: Exception) -> str:
    """Describes the error in one line, with a fix if its own message lacks one."""
    message = " ".join(str(fault).split()) or type(fault).__name__
    if isinstance(fault, OSError) and "No space left on device" in message:
        return f"the disk is full ({message}); free some space and run the same command again"
    return message

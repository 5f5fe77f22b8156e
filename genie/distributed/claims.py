"""Folders that one run at a time works in."""

import sys
from pathlib import Path

from filelock import FileLock, Timeout

from genie.core.paths import lock_file
from genie.distributed.processes import rank, wait_for_all

# One object a path, so that a process that claims twice does not wait for itself.
_locks: dict[Path, FileLock] = {}


def claim(folder: Path) -> None:
    """Waits until no other run works in a folder, and keeps it until `release`, or until this process ends.

    Two experiments with equal params have the same resume folder, and would overwrite each other's files. All
    processes of a stage must call this; the first holds the claim.
    """
    if rank() == 0:
        lock_file(folder).parent.mkdir(parents=True, exist_ok=True)
        try:
            _lock(folder).acquire(timeout=0)
        except Timeout:
            print(f"another run with the same params is at work in {folder}: waiting for it", file=sys.stderr)
            _lock(folder).acquire()
    wait_for_all()


def release(folder: Path) -> None:
    """Gives a claimed folder up; does nothing in a process that does not hold it."""
    _lock(folder).release(force=True)


def _lock(folder: Path) -> FileLock:
    path = lock_file(folder)
    return _locks.setdefault(path, FileLock(path))

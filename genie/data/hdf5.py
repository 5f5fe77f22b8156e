"""HDF5 files are read without a lock, and appear whole or not at all, also when the disk is full."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import h5py

from genie.core.files import replacing


class LockedFileError(ValueError):
    """A file cannot be locked; the message names it and the fix."""


def open_hdf5(path: str | Path) -> h5py.File:
    """Opens a file for reading. No lock is taken: nothing here writes into a file that others read.

    Raises:
        LockedFileError: HDF5 was told to lock all files, and another program holds this one, or its file system has no
            locks.
        OSError: the file is missing, truncated or not HDF5.
    """
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "unable to lock file" not in str(error):
            raise
        raise LockedFileError(
            f"{path}: cannot be locked ({' '.join(str(error).split())}); unset HDF5_USE_FILE_LOCKING, since reading "
            "needs no lock"
        ) from None


@contextmanager
def writing_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Yields a new HDF5 file that appears at `path` at the end, whole, or not at all after a fault.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as temporary, _Stream(temporary, "w+") as stream:
        file = h5py.File(stream, "w", rdcc_nbytes=0)  # written in whole chunks, which a cache would only copy
        try:
            yield file
        finally:
            stream.is_closing = True
            file.close()
            if stream.fault is not None:
                raise stream.fault from None


class _Stream(FileIO):
    """A file whose faults HDF5 does not see when it closes it.

    HDF5 cannot close a file it cannot write: it leaves it half open and crashes the interpreter in the end.
    So a fault is kept, and what is written after it is lost.
    """

    is_closing = False
    fault: OSError | None = None

    def write(self, data) -> int:
        with self._keep_fault():
            view = memoryview(data)
            while self.fault is None and len(view):  # a nearly full disk takes a part first
                view = view[super().write(view) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        with self._keep_fault():
            if self.fault is None:
                super().truncate(size)
        return size

    @contextmanager
    def _keep_fault(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            self.fault = fault
            if not self.is_closing:
                raise

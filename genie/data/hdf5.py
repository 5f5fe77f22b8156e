"""Reads HDF5 files without a lock and writes them atomically, even if the disk is full."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import cast

import h5py

from genie.core.files import replacing


class LockedFileError(ValueError):
    """A file cannot be locked; the message names it and the fix."""


def open_hdf5(path: str | Path) -> h5py.File:
    """Opens a file for reading, without a lock: this code never writes into a file that others read.

    Raises:
        LockedFileError: HDF5 is set to lock all files, and another program holds this one, or its file system does not
            support locks.
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


def get_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """Returns a dataset of a file.

    Raises:
        KeyError: there is none of this name.
    """
    return cast(h5py.Dataset, file[name])


@contextmanager
def writing_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Yields a new HDF5 file that appears at `path`, complete, on exit, or not at all after an error.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary, _Stream(temporary, "w+") as stream:
        file = h5py.File(stream, "w", rdcc_nbytes=0)  # writes are whole chunks, which a cache would only copy
        try:
            yield file
        finally:
            stream.is_closing = True
            file.close()
            if stream.fault is not None:
                raise stream.fault from None


class _Stream(FileIO):
    """A file that hides write errors from HDF5 while HDF5 closes it.

    HDF5 cannot close a file that it cannot write: it leaves the file half open and crashes the interpreter at exit. The
    stream therefore stores the first error and discards everything written after it.
    """

    is_closing = False
    fault: OSError | None = None

    def write(self, data) -> int:
        with self._keep_fault():
            view = memoryview(data)
            while self.fault is None and len(view):  # a nearly full disk first writes only a part
                view = view[super().write(view) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int | None:
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

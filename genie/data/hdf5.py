"""HDF5 files appear whole or not at all, also when the disk is full."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import h5py

from genie.core.files import replacing


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

"""Outputs appear whole or not at all, also when the disk is full."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import h5py


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; moves it into place at the end, or removes it after a fault."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_hdf5(path: str | Path) -> Iterator[h5py.File]:
    """Yields a new HDF5 file that appears at `path` at the end, whole, or not at all after a fault.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path) as temporary, _Stream(temporary, "w+") as stream:
        file = h5py.File(stream, "w")
        try:
            yield file
            file.close()
        except BaseException:
            stream.is_lost = True
            with suppress(Exception):
                file.close()
            if stream.fault is not None:
                raise stream.fault from None
            raise


class _Stream(FileIO):
    """A file that swallows what is written once it is lost.

    HDF5 cannot close a file it fails to write to: it retries, and in the end crashes the interpreter.
    """

    is_lost = False
    fault: OSError | None = None

    def write(self, data) -> int:
        if self.is_lost:
            return len(data)
        try:
            view = memoryview(data)
            while len(view):  # a nearly full disk takes a part first
                view = view[super().write(view) :]
        except OSError as fault:
            self.fault = fault
            raise
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        return size if self.is_lost else super().truncate(size)

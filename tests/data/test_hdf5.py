import fcntl
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from genie.data.hdf5 import writing_hdf5


def test_a_fault_keeps_the_old_file(tmp_path):
    (tmp_path / "a.h5").write_text("old")

    def fail():
        with writing_hdf5(tmp_path / "a.h5") as file:
            file["x"] = np.zeros(1000)
            raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError, match="the model failed"):
        fail()
    assert (tmp_path / "a.h5").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.h5"]


def test_hdf5_is_readable_afterwards(tmp_path):
    with writing_hdf5(tmp_path / "a.h5") as file:
        file["x"] = np.arange(5)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"][:].tolist() == [0, 1, 2, 3, 4]


WRITE_UNDER_LIMIT = """
import resource, sys
import numpy as np
from genie.data.hdf5 import writing_hdf5

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with writing_hdf5(sys.argv[1]) as file:
        data = file.create_dataset("x", (40000,), np.uint8, chunks=(1000,))
        for i in range(0, 40000, 1000):
            data[i : i + 1000] = 7
except OSError as fault:
    print(fault)
"""


@pytest.mark.parametrize("shortage", [1, 500, 30_000, None], ids=["closing", "late", "early", "first"])
def test_a_full_disk_is_one_oserror(shortage, tmp_path):
    """A file size limit stands in for a full disk: writes fail in the same way, at every stage of a file."""
    with writing_hdf5(tmp_path / "whole.h5") as file:
        data = file.create_dataset("x", (40000,), np.uint8, chunks=(1000,))
        data[:] = 7
    limit = (tmp_path / "whole.h5").stat().st_size - shortage if shortage else 10
    result = subprocess.run(
        [sys.executable, "-c", WRITE_UNDER_LIMIT, str(tmp_path / "a.h5"), str(limit)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "[Errno 27] File too large\n", "")
    assert os.listdir(tmp_path) == ["whole.h5"]


READ_LOCKED = """
import sys
from genie.data.hdf5 import open_hdf5
try:
    print(open_hdf5(sys.argv[1])["x"][:].tolist())
except ValueError as fault:
    print(fault)
"""


@pytest.mark.parametrize(("told", "outcome"), [(None, "[7, 7]\n"), ("TRUE", "{path}: cannot be locked (")])
def test_a_file_that_is_locked_is_read(tmp_path, told, outcome):
    """With another program's lock, or on a network disk without locks, an intact file is not reported as truncated."""
    path = tmp_path / "a.h5"
    with writing_hdf5(path) as file:
        file["x"] = np.full(2, 7)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)} | (
        {} if told is None else {"HDF5_USE_FILE_LOCKING": told}
    )
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        command = [sys.executable, "-c", READ_LOCKED, str(path)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.stdout.startswith(outcome.format(path=path)), ran.stderr

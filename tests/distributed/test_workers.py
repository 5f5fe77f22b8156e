"""Worker processes do real jobs; no test waits for a time, only for what a worker does."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest

from genie.distributed import workers
from genie.distributed.workers import WorkerError
from tests.conftest import ROOT

work = partial(workers.work, preload="json")


def record(folder, job, advance):
    """Writes a file of the process that did the job."""
    (folder / str(job)).write_text(str(os.getpid()))
    advance(job)


def play_forever(folder, job, advance):
    """Does a job that ends only with its worker; its file then says so."""
    (folder / str(job)).write_text(str(os.getpid()))
    try:
        while True:
            time.sleep(0.01)
            advance(0)
    finally:
        (folder / str(job)).write_text("cleaned up")


def fail(folder, job, advance):
    """Fails as soon as the other worker is at its job."""
    while not any(path.read_text() for path in folder.iterdir()):
        time.sleep(0.01)
    raise OSError(28, "No space left on device", str(job))


def killed(folder, job, advance):
    """As if the system ended it, as soon as the other worker is at its job."""
    while not any(path.read_text() for path in folder.iterdir()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def left(folder, job, advance):
    """Ends its process without a word."""
    os._exit(3)


def children():
    """Worker processes: they are children of the server, which is one of this process."""
    return [worker for server in psutil.Process().children() for worker in server.children()]


@pytest.mark.parametrize("count", [1, 3])
def test_every_job_is_done_once_and_tells_its_progress(tmp_path, count):
    told = []
    work([partial(record, tmp_path)] * count, [4, 3, 2, 1], told.append)
    assert sorted(told) == [1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "3", "4"]
    pids = {int(path.read_text()) for path in tmp_path.iterdir()}
    assert len(pids) == count
    assert os.getpid() not in pids
    assert not children()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("does", "fault", "message"),
    [
        (fail, OSError, r"No space left on device: '2'$"),
        (killed, WorkerError, r"^a worker process was killed \(SIGKILL\), .* run the same command again to continue"),
        (left, WorkerError, r"^a worker process ended with exit code 3$"),
    ],
)
def test_a_worker_that_fails_ends_the_others_which_clean_up(tmp_path, does, fault, message):
    with pytest.raises(fault, match=message) as caught:
        work([partial(play_forever, tmp_path), partial(does, tmp_path)], [1, 2, 3], lambda _: None)
    assert "\n" not in str(caught.value)
    assert [path.read_text() for path in tmp_path.iterdir()] in (["cleaned up"], []), "[] if it had not begun"
    assert not children()
    if does is fail:
        assert "in fail" in str(caught.value.__cause__), "the worker's own traceback"


@pytest.mark.slow
def test_ctrl_c_ends_workers_without_a_word_of_theirs(tmp_path, capfd):
    def interrupt(_):
        for process in [psutil.Process(), *children()]:  # as a terminal does
            process.send_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        work([partial(play_forever, tmp_path)] * 2, [1, 2], interrupt)
    assert not children()
    assert "cleaned up" in {path.read_text() for path in tmp_path.iterdir()}
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


UNGUARDED = """
from functools import partial
from genie.distributed.workers import work
work([partial(print, flush=True)] * 2, ["job"] * 2, print, preload="json")
print("once")
"""


@pytest.mark.slow
def test_workers_do_not_run_the_main_program_again(tmp_path):
    """Which need not be guarded, and may come from a pipe."""
    for command in ([sys.executable, "-"], [sys.executable, "main.py"]):
        (tmp_path / "main.py").write_text(UNGUARDED)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        given = UNGUARDED if "-" in command else None
        ran = subprocess.run(command, cwd=tmp_path, env=environment, input=given, capture_output=True, text=True)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.splitlines()[-1] == "once"
        assert ran.stdout.count("once") == 1

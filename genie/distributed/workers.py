"""Worker processes: each does one job after another; if one of them fails, all end."""

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from traceback import format_exc
from types import ModuleType
from typing import Any

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
SECONDS_TO_END = 30  # after which a worker that does not end by itself is killed

Advance = Callable[[int], Any]
Work = Callable[[Any, Advance], None]


class WorkerError(ValueError):
    """A worker process ended before its job was done; the message says how."""


def work(workers: Sequence[Work], jobs: Iterable[Any], advance: Advance, *, preload: str) -> None:
    """Does jobs in several processes, and returns when all are done.

    The processes are forked from a server that imports `preload` once, so that they share its memory. They are not
    forked from this process, whose threads, such as MLflow's, may hold locks that nobody would release in the fork. On
    macOS, where libraries may not be used after a fork, they are spawned and share nothing.

    Args:
        workers: one for each process: `worker(job, advance)` does a job. They must be pickled, as the jobs, so a worker
            is a function of a module, or a `partial` of one.
        jobs: at least as many as workers; a worker that has done one takes the next.
        advance: called with each number that a worker has called its own `advance` with.
        preload: name of a module whose import takes long or much memory.

    Raises:
        WorkerError: a worker was killed.
        Exception: the first that a worker raised; its cause shows the worker's traceback.
    """
    jobs = iter(jobs)
    processes = {}
    try:
        if METHOD == "forkserver":
            _start_server(preload)
        for worker in workers:
            connection, process = _start(worker)
            processes[connection] = process
        at_work = set(processes)
        for connection in processes:
            _send(connection, processes[connection], next(jobs))
        while at_work:
            for connection in wait(at_work):
                assert isinstance(connection, Connection)
                told = _receive(connection, processes[connection])
                if isinstance(told, int):
                    advance(told)
                elif told is not None:
                    error, traceback = told
                    raise error from RuntimeError(f"in a worker process:\n{traceback}")
                elif (job := next(jobs, None)) is not None:
                    _send(connection, processes[connection], job)
                else:
                    at_work.remove(connection)
    finally:
        for connection in processes:
            connection.close()
        for process in processes.values():
            process.join(SECONDS_TO_END)
            process.kill()


def _start_server(preload: str) -> None:
    """Starts the server, unless it runs. It ends with this process."""
    forkserver.set_forkserver_preload([preload])
    path = os.environ.get("PYTHONPATH")
    # The server finds modules where this process does; Python passes `sys.path` on only to the forks.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    # The server and its forks ignore Ctrl-C for good: this process receives it too, and ends them.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)
        del os.environ["PYTHONPATH"]
        if path is not None:
            os.environ["PYTHONPATH"] = path


def _start(worker: Work) -> tuple[Connection, BaseProcess]:
    context = get_context(METHOD)
    connection, other_end = context.Pipe()
    process = context.Process(target=_serve, args=(other_end, worker), daemon=True)
    # A new process would run the main program's file again, which need not expect that; no worker is defined there.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
    other_end.close()  # so that the connection ends with the worker
    return connection, process


def _serve(connection: Connection, worker: Work) -> None:
    """Does jobs until the connection is closed, or the process at its other end is gone.

    That also ends a job in progress, at its next `advance`, so that no worker outlives its starter for long.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # in a spawned worker; a forked one has inherited it
    with suppress(EOFError, ConnectionError):
        while True:
            job = connection.recv()
            try:
                worker(job, connection.send)
                answer = None
            except Exception as error:
                answer = error, format_exc()
            connection.send(answer)


def _send(connection: Connection, process: BaseProcess, job: Any) -> None:
    try:
        connection.send(job)
    except ConnectionError:
        raise _end_of(process) from None


def _receive(connection: Connection, process: BaseProcess) -> Any:
    """Progress as an int, None when a job is done, or an exception and its traceback."""
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
        raise _end_of(process) from None


def _end_of(process: BaseProcess) -> WorkerError:
    process.join()
    code = process.exitcode
    assert code is not None
    if code >= 0:
        return WorkerError(f"a worker process ended with exit code {code}")
    return WorkerError(
        f"a worker process was killed ({signal.Signals(-code).name}), as the system does if memory runs out; run the "
        "same command again to continue, with fewer runtime.threads if memory is short"
    )

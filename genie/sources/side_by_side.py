"""Records shards or decodes films side by side: in how many worker processes, and with how many threads each."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

from genie.distributed.processes import free_memory, num_local_processes
from genie.distributed.workers import Advance, work

Job = TypeVar("Job")

THREADS_A_WORKER = 2  # that step one simulator as fast as two workers do; more do not
FRAMES_A_WORKER = 10_000  # that a core records while a worker starts: imports, and the simulator's pictures


def thread_shares(sizes: Sequence[int], num_threads: int, worker_bytes: int) -> list[int]:
    """Divides threads among worker processes that record shards.

    There is a worker for every `THREADS_A_WORKER` threads; fewer if there are fewer shards, if memory is short or if
    the frames are not worth it. Threads that are left go to the workers in proportion to the shards they start with.

    Args:
        sizes: frames of each shard, in descending order.
        num_threads: threads of all workers.
        worker_bytes: memory that a worker takes.

    Returns:
        Number of threads of each worker; a single worker means that no other process is worth it.
    """
    worthwhile = 1 + sum(sizes[1:]) // FRAMES_A_WORKER
    most = min(len(sizes), worthwhile, workers_in_memory(worker_bytes))
    num_workers = min(max(1, num_threads // THREADS_A_WORKER), most)
    shares = []
    for worker in range(num_workers):
        left, others = num_threads - sum(shares), num_workers - worker - 1
        shares.append(min(left * sizes[worker] // sum(sizes[worker:num_workers]), left - others))
    return shares


def workers_in_memory(worker_bytes: int) -> int:
    """Number of workers of this process that its share of the free memory holds, at least one."""
    return max(1, free_memory() // num_local_processes() // worker_bytes)


def largest_first(jobs: Iterable[Job], size: Callable[[Job], int]) -> list[Job]:
    """Jobs by descending size: at the end, when some workers have no job left, the others are soon done."""
    return sorted(jobs, key=size, reverse=True)


def run_side_by_side(
    run: Callable[[int, Job, Advance], Any],
    jobs: Sequence[Job],
    shares: Sequence[int],
    advance: Advance,
    *,
    preload: str,
) -> None:
    """Does jobs in worker processes, or in this one if there is a single share of threads.

    Args:
        run: does a job, given a number of threads, the job, and what to call with the number of frames done.
        jobs: the jobs, in the order in which they are begun.
        shares: threads of each worker.
        advance: is called in this process with the number of frames done.
        preload: module that is imported once for all workers.

    Raises:
        WorkerError: a worker was killed.
    """
    if len(shares) > 1:
        work([partial(run, share) for share in shares], jobs, advance, preload=preload)
        return
    for job in jobs:
        run(shares[0], job, advance)

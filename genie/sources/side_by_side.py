"""How many worker processes record shards side by side, and with how many threads each."""

from collections.abc import Sequence

from genie.distributed.processes import free_memory, num_local_processes

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
    in_memory = max(1, free_memory() // num_local_processes() // worker_bytes)
    num_workers = min(max(1, num_threads // THREADS_A_WORKER), len(sizes), worthwhile, in_memory)
    shares = []
    for worker in range(num_workers):
        left, others = num_threads - sum(shares), num_workers - worker - 1
        shares.append(min(left * sizes[worker] // sum(sizes[worker:num_workers]), left - others))
    return shares

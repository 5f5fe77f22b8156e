"""Reads frames for a GPU in a thread, while it computes on those before them."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np
import torch

Item = TypeVar("Item")


def read_ahead(
    read: Callable[[int, int], np.ndarray], spans: Iterable[tuple[int, int]], device: torch.device
) -> Iterator[torch.Tensor]:
    """Yields the frames of each span on the device.

    Args:
        read: `read(start, stop)` returns frames `(stop - start, H, W, C)`, as of a store or a shard.
        spans: first frame, and frame after the last, of each piece.
        device: device of the yielded frames; on a CPU they are read when asked for, since a thread would take time
            from the model's.
    """
    frames = (torch.from_numpy(read(start, stop)) for start, stop in spans)
    if device.type == "cuda":
        frames = (part.pin_memory() for part in frames)  # the host need not wait for copies from pinned memory
    if device.type != "cpu":
        frames = one_ahead(frames)
    return (part.to(device, non_blocking=True) for part in frames)


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yields the same items, and makes the next one in a thread while the present one is in use."""
    end, set_device = object(), None
    if torch.cuda.is_initialized():
        # Otherwise the thread of any process would take memory of the first GPU.
        set_device = partial(torch.cuda.set_device, torch.cuda.current_device())
    with ThreadPoolExecutor(1, initializer=set_device) as thread:
        made = thread.submit(next, items, end)
        while (item := made.result()) is not end:
            made = thread.submit(next, items, end)
            yield item  # pyright: ignore[reportReturnType]

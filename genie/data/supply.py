"""Supply of training batches: where the data are kept, and how batches reach the model's device.

A batch is the same wherever its data are kept (`genie.data.windows`); only the speed differs.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch.utils.data import DataLoader

from genie.data.read_ahead import one_ahead
from genie.data.windows import Batch, Windows
from genie.distributed.devices import free_bytes
from genie.distributed.processes import num_local_processes

Place = Literal["device", "memory", "files"]

ROOM = 0.5  # largest share of free memory that the data may take; model, activations and other programs need the rest
MAX_READERS = 16  # processes that read and decompress frames for a GPU


def keep_data(dataset: Windows, device: torch.device, wanted: Literal["auto"] | Place) -> None:
    """Loads the data of a dataset to where training should keep them.

    Args:
        dataset: draws the batches.
        device: the model's.
        wanted: `device` keeps the data in the device's memory, `memory` in the machine's, `files` on disk; `auto` takes
            the first of them with room.
    """
    place = fitting_place(dataset.num_bytes, device) if wanted == "auto" else wanted
    if place == "files":
        dataset.release()
    else:
        dataset.hold(device if place == "device" else "cpu")


def fitting_place(num_bytes: int, device: torch.device) -> Place:
    """The fastest place that has room for data of a size, for training on a device."""
    if device.type == "cuda" and num_bytes <= ROOM * free_bytes(device):
        return "device"
    fits = num_bytes * num_local_processes() <= ROOM * free_bytes(torch.device("cpu"))
    return "memory" if fits else "files"


def batches(
    dataset: Windows, device: torch.device, start_step: int = 0, num_readers: int | None = None
) -> Iterator[Batch]:
    """Yields `dataset[start_step]`, `dataset[start_step + 1]` and so on to its last, on a device.

    Args:
        dataset: draws the batches.
        device: the model's.
        start_step: first step.
        num_readers: number of processes that read files, if data are kept there; None: one for a CPU, whose cores the
            model needs, and up to `MAX_READERS` for a GPU.
    """
    steps = range(start_step, len(dataset))

    def prepare(part: torch.Tensor) -> torch.Tensor:
        # From page-locked memory a GPU copies while the host goes on.
        return part.pin_memory() if device.type == "cuda" else part

    if dataset.is_held and dataset.device.type == device.type:
        drawn = map(dataset.__getitem__, steps)
    elif dataset.is_held:
        drawn = one_ahead(_changed(dataset[step], prepare) for step in steps)
    else:
        if num_readers is None:
            num_readers = 1 if device.type == "cpu" else max(1, min(MAX_READERS, torch.get_num_threads() - 1))
        drawn = DataLoader(
            dataset,
            sampler=steps,
            batch_size=None,
            num_workers=num_readers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else the loader draws from the global one, and a resumed run differs
        )
    return (_changed(batch, lambda part: part.to(device, non_blocking=True)) for batch in drawn)


def _changed(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    if isinstance(batch, torch.Tensor):
        return change(batch)
    return {name: change(part) for name, part in batch.items()}

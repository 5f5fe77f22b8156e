"""Which world is played, and on what it computes."""

from pathlib import Path

import torch

from genie.fetch import fetch_world
from genie.params import Params
from genie.runtime import num_threads, resolve_device
from genie.world import WorldModel


def open_world(source: str | None, params: Params) -> WorldModel:
    """Loads a world, and sets the number of CPU threads.

    Args:
        source: its folder, its name on the Hugging Face hub, or its URI in MLflow (`models:/...`, `runs:/...`); a
            folder of checkpoints, as `dvc repro` leaves in `data/models`; None is the shipped one.
        params: those of the runtime, and of sampling where the source does not say, count.

    Raises:
        PretrainedError, FetchError, CheckpointError, RuntimeUnavailableError: it is not to be had.
    """
    device = resolve_device(params.runtime)
    # Unless told otherwise all cores but one, which the page needs: threads that wait for each other on cores that are
    # taken make a frame many times slower.
    torch.set_num_threads(params.runtime.threads or max(1, num_threads(params.runtime) - 1))
    if source is not None and (Path(source) / "dynamics").is_dir():
        return WorldModel.load(source, params.sampling, device)
    return WorldModel.from_pretrained(fetch_world(source), device)

"""Which world is played, and on what it computes."""

import re
from pathlib import Path

import torch

from genie.params import Params
from genie.pretrained import PretrainedError
from genie.runtime import num_threads, resolve_device
from genie.training.checkpoint import CONFIG
from genie.world import WorldModel


def open_world(source: str | None, params: Params) -> WorldModel:
    """Loads a world, and sets the number of CPU threads.

    Args:
        source: its folder, its name on the Hugging Face hub, or its URI in MLflow (`models:/...`, `runs:/...`); a
            folder of checkpoints, as `dvc repro` leaves in `data/models`; None is the shipped one.
        params: those of the runtime, and of sampling where the source does not say, count.

    Raises:
        PretrainedError, CheckpointError, RuntimeUnavailableError: it is not to be had.
    """
    device = resolve_device(params.runtime)
    # Unless told otherwise all cores but one, which the page needs: threads that wait for each other on cores that are
    # taken make a frame many times slower.
    torch.set_num_threads(params.runtime.threads or max(1, num_threads(params.runtime) - 1))
    if source is None:
        return WorldModel.from_pretrained(None, device)
    if re.match(r"[a-z-]+:/", source):
        return WorldModel.from_pretrained(_download(source), device)
    if (Path(source) / "dynamics").is_dir():
        return WorldModel.load(source, params.sampling, device)
    return WorldModel.from_pretrained(source, device)


def _download(uri: str) -> Path:
    """The folder of the world that lies, however deep, in what MLflow logged."""
    import mlflow  # here, since it takes seconds that other sources need not

    try:
        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (mlflow.MlflowException, OSError) as error:
        raise PretrainedError(f"{uri}: not to be had from MLflow ({error}); `mlflow ui` shows what is there") from None
    found = sorted(folder.rglob(CONFIG))
    if not found:
        raise PretrainedError(f"{uri}: holds no world; name what `evaluate` logged, as `mlflow ui` shows it")
    return found[0].parent

"""Opens the world to play, on the device of the runtime params."""

import os
from contextlib import suppress
from pathlib import Path

import torch

from genie.core.params import Params, RuntimeParams
from genie.distributed.devices import keep_freed_memory, resolve_device
from genie.distributed.processes import num_threads
from genie.models.checkpoint import CONFIG
from genie.world.maskgit import Sampling
from genie.world.pretrained import PretrainedError
from genie.world.prompts import Prompt
from genie.world.world_model import WorldModel

MLFLOW_SCHEMES = ("runs:/", "models:/")


def open_world(source: str | None, params: Params) -> WorldModel:
    """Loads a world and sets the number of CPU threads.

    Args:
        source: its folder, its name on the Hugging Face hub, or its URI in MLflow (`models:/...`, `runs:/...`); or a
            folder of checkpoints, such as `data/models` of `dvc repro`, with prompts from the data of the pipeline in
            `data/`. None: the shipped world.
        params: uses `runtime`; for checkpoints also `sampling`, and `evaluate.horizon` to choose prompts.

    Raises:
        PretrainedError, CheckpointError, RuntimeUnavailableError: the world or the device is unavailable.
    """
    device = resolve_device(params.runtime)
    keep_freed_memory()
    # By default all cores but one, which the page needs: threads that wait for each other on busy cores make a frame
    # many times slower.
    torch.set_num_threads(params.runtime.threads or max(1, num_threads(params.runtime) - 1))
    if source is not None and source.startswith(MLFLOW_SCHEMES):
        return WorldModel.from_pretrained(_download(source), device)
    if source is not None and (Path(source) / "dynamics").is_dir():
        world = WorldModel.load(source, Sampling(**params.sampling.model_dump()), device)
        world.prompts = _held_out_prompts(world, params.evaluate.horizon)
        return world
    return WorldModel.from_pretrained(source, device)


def batch_threads(runtime: RuntimeParams) -> int:
    """Threads that step the worlds of a batch, each with as many cores as `open_world` set: one, or two on two cores,
    where a single world leaves one core to the page."""
    return max(1, num_threads(runtime) // torch.get_num_threads()) if resolve_device(runtime).type == "cpu" else 1


def _held_out_prompts(world: WorldModel, horizon: int) -> tuple[Prompt, ...]:
    """Prompts from the pipeline's data; empty without it, since levels and pictures also serve as prompts."""
    with suppress(ImportError):  # playing works without HDF5
        from genie.data.caches import CacheFileError
        from genie.data.episodes import EpisodeFileError
        from genie.data.held_out import lively_prompts
        from genie.data.windows import WindowError

        with suppress(EpisodeFileError, CacheFileError, WindowError):
            return lively_prompts(world.context_frames, horizon, world.dynamics.config.lam_fingerprint)
    return ()


def _download(uri: str) -> Path:
    """Downloads the MLflow model that `evaluate` logged; returns the folder of the world in it."""
    # Set before MLflow is imported, which is slow and therefore done only for this source.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise PretrainedError(f"{uri}: MLflow is not installed: pip install 'mini-genie[train]'") from None

    try:
        found = sorted(Path(download_artifacts(uri)).glob(f"artifacts/*/{CONFIG}"))
    except (MlflowException, OSError) as error:
        cause = str(error).strip().splitlines()[0]
        raise PretrainedError(f"{uri}: MLflow has no such model ({cause}); `make ui` shows those of evaluate") from None
    if not found:
        raise PretrainedError(f"{uri}: a model, but no world; evaluate logs one as runs:/RUN/world")
    return found[0].parent

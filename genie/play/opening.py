"""Which world is played, and on what it computes."""

import os
from contextlib import suppress
from pathlib import Path

import torch

from genie.core.params import Params
from genie.distributed.devices import keep_freed_memory, resolve_device
from genie.distributed.processes import num_threads
from genie.models.checkpoint import CONFIG
from genie.world.maskgit import Sampling
from genie.world.pretrained import PretrainedError
from genie.world.prompts import Prompt
from genie.world.world_model import WorldModel

MLFLOW_SCHEMES = ("runs:/", "models:/")


def open_world(source: str | None, params: Params) -> WorldModel:
    """Loads a world, and sets the number of CPU threads.

    Args:
        source: its folder, its name on the Hugging Face hub, or its URI in MLflow (`models:/...`, `runs:/...`); a
            folder of checkpoints, as `dvc repro` leaves in `data/models`, prompted with what lies beside it in
            `data/`; None is the shipped one.
        params: those of the runtime, and of sampling where the source does not say, count; of checkpoints,
            `evaluate.horizon` too, when prompts are chosen.

    Raises:
        PretrainedError, CheckpointError, RuntimeUnavailableError: it is not to be had.
    """
    device = resolve_device(params.runtime)
    keep_freed_memory()
    # Unless told otherwise all cores but one, which the page needs: threads that wait for each other on cores that are
    # taken make a frame many times slower.
    torch.set_num_threads(params.runtime.threads or max(1, num_threads(params.runtime) - 1))
    if source is not None and source.startswith(MLFLOW_SCHEMES):
        return WorldModel.from_pretrained(_download(source), device)
    if source is not None and (Path(source) / "dynamics").is_dir():
        world = WorldModel.load(source, Sampling(**params.sampling.model_dump()), device)
        world.prompts = _held_out_prompts(world, params.evaluate.horizon)
        return world
    return WorldModel.from_pretrained(source, device)


def _held_out_prompts(world: WorldModel, horizon: int) -> tuple[Prompt, ...]:
    """Those that the pipeline's data hold, if it is there: the world can be played from levels and pictures too."""
    with suppress(ImportError):  # without HDF5 a world is played all the same
        from genie.data.caches import CacheFileError
        from genie.data.episodes import EpisodeFileError
        from genie.data.held_out import lively_prompts
        from genie.data.windows import WindowError

        with suppress(EpisodeFileError, CacheFileError, WindowError):
            return lively_prompts(world.context_frames, horizon, world.dynamics.config.lam_fingerprint)
    return ()


def _download(uri: str) -> Path:
    """The folder of the world that lies in the model which `evaluate` logged."""
    # Before MLflow is imported, which takes seconds that other sources need not.
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

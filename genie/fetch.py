"""Worlds by their MLflow URI: `runs:/RUN/world` or `models:/...`, as `evaluate` logs them."""

import os
from pathlib import Path

SCHEMES = ("runs:/", "models:/")


class FetchError(ValueError):
    """MLflow has no such world; the message names the cause and the fix."""


def fetch_world(world: str | None) -> str | Path | None:
    """What `WorldModel.from_pretrained` takes, of what the command line takes, which may be an MLflow URI too.

    Raises:
        FetchError: it is such a URI, and no world is there.
    """
    if world is None or not world.startswith(SCHEMES):
        return world
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        worlds = list(Path(download_artifacts(world)).glob("artifacts/*/config.json"))
    except (MlflowException, OSError) as error:
        cause = str(error).strip().splitlines()[0]
        raise FetchError(f"{world}: MLflow has no such model ({cause}); `make ui` shows those of evaluate") from None
    if not worlds:
        raise FetchError(f"{world}: a model, but no world; evaluate logs one as runs:/RUN/world")
    return worlds[0].parent

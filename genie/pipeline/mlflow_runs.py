"""MLflow tracking: a parent run for each run of the pipeline, a child run for each stage.

Runs are stored in `mlflow.db` at the project's root, in the experiment `mini-genie`, unless `MLFLOW_TRACKING_URI` and
`MLFLOW_EXPERIMENT_NAME` are set.

Each stage is a separate process. Stages of one `dvc repro` or `dvc exp run` share a parent run, which is identified by
the DVC process that started them; a stage run by hand gets its own parent run.
"""

import json
import logging
import os
import subprocess
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
from filelock import FileLock

from genie.core.params import Params, leaves
from genie.core.paths import project_root
from genie.core.protocols import NullTracker, Tracker
from genie.core.yaml_files import YamlError, read_yaml

EXPERIMENT = "mini-genie"
MODEL_TRAINING = {"mlflow.experimentKind": "custom_model_development"}  # the view that MLflow's UI opens with
DATASETS = ("data/frames", "data/tokens", "data/actions")
MAX_DIGEST = 36  # maximum number of characters in MLflow
PARAMS_A_REQUEST = 100  # maximum of MLflow
SECONDS_PER_SYSTEM_SAMPLE = 5
SECONDS_TO_WAIT_FOR_LOCK = 60  # on the database, while a parallel experiment writes
SECONDS_BETWEEN_TRIES = 300  # to reach an unreachable store


class MlflowTracker(Tracker):
    """MLflow run of one stage; `open_tracker` creates and ends it.

    A locked or unreachable store does not stop training: records are queued and written when the store is reachable
    again.
    """

    def __init__(self, client, parent_id: str, run_id: str, stage: str):
        self._client, self._parent_id, self._stage = client, parent_id, stage
        self._waiting: deque[Callable[[], None]] = deque()
        self._next_try = 0.0
        self._take(run_id)

    def log_metrics(self, metrics, step):
        self._log(self.run_id, metrics, step)

    def log_image(self, name, image_HWC, step):
        self._write(partial(self._client.log_image, self.run_id, image_HWC, key=name, step=step))

    def log_final(self, metrics):
        self._log(self.run_id, metrics, 0)
        self._log(self._parent_id, {f"{self._stage}.{key}": value for key, value in metrics.items()}, 0)

    def log_artifact(self, path):
        if Path(path).is_dir():
            self._write(partial(self._client.log_artifacts, self.run_id, str(path), artifact_path=Path(path).name))
        else:
            self._write(partial(self._client.log_artifact, self.run_id, str(path)))

    def log_world(self, folder, frame_shape):
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        import mlflow
        from mlflow.exceptions import MlflowException
        from mlflow.models import ModelSignature
        from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

        frames = (np.dtype(np.uint8), (-1, *frame_shape))
        signature = ModelSignature(
            inputs=Schema([TensorSpec(*frames, "prompt"), TensorSpec(np.dtype(np.int64), (-1,), "actions")]),
            outputs=Schema([TensorSpec(*frames)]),
            params=ParamSchema([ParamSpec("seed", DataType.long, 0)]),
        )
        mlflow.set_tracking_uri(self._client.tracking_uri)
        try:
            # Silences MLflow's warning about a missing input example.
            with mlflow.start_run(self.run_id), warnings.catch_warnings(record=True):
                mlflow.pyfunc.log_model(
                    name="world",
                    python_model=find_spec("genie.world.pyfunc").origin,  # pyright: ignore[reportOptionalMemberAccess]
                    artifacts={"world": str(folder)},
                    signature=signature,
                    pip_requirements=[],  # not inferred, which takes a process; genie, on no package index, brings all
                )
            self._client.update_run(self.run_id, status="RUNNING")
        except (MlflowException, OSError) as fault:
            # Not queued: the folder belongs to the caller and may be deleted by then.
            _say(f"the world is not recorded: MLflow cannot be reached ({_first_line(fault)})")

    def resume(self, run_id):
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_tag(run_id, "mlflow.parentRunId", self._parent_id)
            self._client.delete_run(self.run_id)
        except MlflowException:
            return
        self._monitor.finish()
        self._take(run_id)

    def close(self, status: str) -> None:
        """Ends the run, and the pipeline's run until the next stage, since the last stage is not known in advance."""
        self._monitor.finish()
        for run_id in (self.run_id, self._parent_id):
            self._waiting.append(partial(self._client.set_terminated, run_id, status))
        fault = self._write_waiting()
        if fault:
            _say(f"{len(self._waiting)} records of {self._stage} are lost: MLflow cannot be reached ({fault})")

    def _take(self, run_id: str) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self.run_id = run_id
        self._write(partial(self._client.update_run, run_id, status="RUNNING"))
        self._monitor = SystemMetricsMonitor(
            run_id,
            sampling_interval=SECONDS_PER_SYSTEM_SAMPLE,
            resume_logging=True,
            tracking_uri=self._client.tracking_uri,
        )
        self._monitor.start()

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 1_000_000
        points = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        self._write(partial(self._client.log_batch, run_id, metrics=points))

    def _write(self, write: Callable[[], None]) -> None:
        """Queues a write and writes the queue, unless it is too early to retry."""
        self._waiting.append(write)
        if time.monotonic() < self._next_try:
            return
        fault = self._write_waiting()
        if fault and not self._next_try:
            _say(f"MLflow cannot be reached ({fault}); {self._stage} goes on, and what it records waits")
        if self._next_try and not fault:
            _say("MLflow can be reached again; what waited is recorded")
        # Tries are spaced out, since each may wait for a lock.
        self._next_try = time.monotonic() + SECONDS_BETWEEN_TRIES if fault else 0.0

    def _write_waiting(self) -> str:
        """Writes the queue in order; returns the first line of the error, or an empty string on success."""
        from mlflow.exceptions import MlflowException

        while self._waiting:
            try:
                self._waiting[0]()
            except (MlflowException, OSError) as fault:
                return _first_line(fault)
            self._waiting.popleft()
        return ""


@contextmanager
def open_tracker(stage: str, params: Params) -> Iterator[Tracker]:
    """Records a stage as a child run that ends as FINISHED, FAILED or, on Ctrl-C, KILLED.

    If the store cannot be used, the stage runs unrecorded, and one line on stderr reports it.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
    from mlflow.exceptions import MlflowException

    for narrator in ("mlflow", "alembic"):
        logging.getLogger(narrator).setLevel(logging.WARNING)
    # These print tracebacks for an unreachable store, which `MlflowTracker` reports in one line.
    for narrator in ("store.db.utils", "system_metrics.system_metrics_monitor"):
        logging.getLogger(f"mlflow.{narrator}").setLevel(logging.CRITICAL)
    try:
        client, parent_id, run_id = _begin_run(stage, params)
    except MlflowException as error:
        where = os.environ.get("MLFLOW_TRACKING_URI") or project_root() / "mlflow.db"
        _say(f"MLflow cannot use {where} ({_first_line(error)}); {stage} goes on unrecorded")
        yield NullTracker()
        return
    tracker = MlflowTracker(client, parent_id, run_id, stage)
    try:
        yield tracker
    except BaseException as fault:
        tracker.close("KILLED" if isinstance(fault, KeyboardInterrupt) else "FAILED")
        raise
    tracker.close("FINISHED")


def _begin_run(stage: str, params: Params) -> tuple:
    """Returns the client, the id of the pipeline's run and the id of a new run for the stage.

    Raises:
        MlflowException: the store cannot be read or written.
    """
    from mlflow import MlflowClient

    root = project_root()
    lock = root / ".cache" / "mlflow.lock"
    lock.parent.mkdir(exist_ok=True)
    chosen = os.environ.get("MLFLOW_TRACKING_URI")
    with FileLock(lock):  # two queue workers must not create the database at once
        client = MlflowClient(chosen or f"sqlite:///{root}/mlflow.db?timeout={SECONDS_TO_WAIT_FOR_LOCK}")
        # Absolute, since MLflow stores it permanently; a custom store has its own location.
        experiment_id = _find_or_create_experiment(client, None if chosen else (root / "mlartifacts").as_uri())
    parent_id = _find_or_create_parent(client, experiment_id, stage, params)
    definition = _stage_definition(stage)
    inputs = _inputs(definition.get("deps", ()))
    tags = _common_tags() | {f"dvc.deps.{dep}": out["md5"] for dep, out in inputs.items()}
    tags |= {"mlflow.parentRunId": parent_id}
    run_id = client.create_run(experiment_id, run_name=stage, tags=tags).info.run_id
    _log_params(client, run_id, params, definition.get("params", ()))
    _log_datasets(client, run_id, inputs)
    return client, parent_id, run_id


def _first_line(fault: Exception) -> str:
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _find_or_create_experiment(client, artifacts: str | None) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    experiment = client.get_experiment_by_name(name)
    if experiment:
        return experiment.experiment_id
    return client.create_experiment(name, artifact_location=artifacts, tags=MODEL_TRAINING)


def _find_or_create_parent(client, experiment_id: str, stage: str, params: Params) -> str:
    """Returns the id of the pipeline run that this stage belongs to, and sets the run RUNNING."""
    pipeline = _pipeline_key()
    if pipeline:
        found = client.search_runs([experiment_id], f"tags.pipeline = '{pipeline}'", max_results=1)
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
    tags = _common_tags() | {"pipeline": pipeline or "by hand"}
    commit = tags.get("mlflow.source.git.commit", "")[:7]
    name = os.environ.get("DVC_EXP_NAME") or f"{'dvc repro' if pipeline else f'{stage} by hand'} {commit}".strip()
    run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    _log_params(client, run_id, params, list(type(params).model_fields))
    return run_id


def _pipeline_key() -> str | None:
    """Unique key of the DVC process that started this stage; None for a stage run by hand."""
    with suppress(psutil.Error):
        for process in psutil.Process().parents():
            if any(Path(word).stem == "dvc" for word in process.cmdline()[:3]):
                return f"{process.pid}-{process.create_time():.2f}"
    return None


def _common_tags() -> dict[str, str]:
    tags = {}
    with suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
    if "DVC_EXP_NAME" in os.environ:
        tags["dvc.exp_name"] = os.environ["DVC_EXP_NAME"]
    return tags


def _stage_definition(stage: str) -> dict:
    """Entry of the stage in `dvc.yaml`; empty if there is no such file, as in tests."""
    with suppress(YamlError):
        return read_yaml("dvc.yaml")["stages"].get(stage, {})
    return {}


def _inputs(deps: Sequence[str]) -> dict[str, dict]:
    """Entries in `dvc.lock` of the inputs made by other stages: `md5`, `size` and, for folders, `nfiles`.

    They are read from the outs of those stages, since this stage's own entry still describes its previous run.
    """
    with suppress(YamlError):
        stages = read_yaml("dvc.lock")["stages"].values()
        outs = {out["path"]: out for stage in stages for out in stage.get("outs", ())}
        return {dep: outs[dep] for dep in deps if dep in outs}
    return {}


def _log_datasets(client, run_id: str, inputs: Mapping[str, Mapping]) -> None:
    """Logs frames, tokens and actions as datasets, identified by their DVC hashes."""
    from mlflow.entities import Dataset, DatasetInput

    datasets = [
        Dataset(
            name=Path(path).name,
            digest=out["md5"][:MAX_DIGEST],
            source_type="local",
            source=json.dumps({"uri": path}),
            profile=json.dumps({key: out[key] for key in ("size", "nfiles") if key in out}),
        )
        for path, out in inputs.items()
        if path in DATASETS
    ]
    if datasets:
        client.log_inputs(run_id, [DatasetInput(dataset) for dataset in datasets])


def _log_params(client, run_id: str, params: Params, wanted: Sequence[str]) -> None:
    """Logs every param named in `wanted` (`runtime.precision`) or in a section named there (`lam`)."""
    from mlflow.entities import Param

    prefixes = tuple(f"{key}." for key in wanted)
    logged = [Param(key, str(value)) for key, value in leaves(params.model_dump()) if f"{key}.".startswith(prefixes)]
    for first in range(0, len(logged), PARAMS_A_REQUEST):
        client.log_batch(run_id, params=logged[first : first + PARAMS_A_REQUEST])

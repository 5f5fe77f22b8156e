import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from genie.core.protocols import NullTracker, Tracker
from genie.pipeline.mlflow_runs import MlflowTracker, open_tracker
from genie.world import WorldModel
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

IMAGE_HWC = np.zeros((8, 8, 3), np.uint8)

# Runs the stages of a pipeline as child processes of a program named dvc, as DVC does.
DVC = """
import subprocess, sys
for stage in sys.argv[2:]:
    subprocess.run([sys.executable, "-c", sys.argv[1], stage], check=True)
"""
STAGE = """
import sys
from genie.core.params import load_params
from genie.pipeline.mlflow_runs import open_tracker
with open_tracker(sys.argv[1], load_params()) as tracker:
    tracker.log_final({"psnr": 20.0})
"""


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory):
    """An mlflow.db without runs: creating one takes seconds, copying one does not."""
    folder = tmp_path_factory.mktemp("store")
    client_of(folder).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path, monkeypatch, empty_store):
    """A working directory with a store, outside of DVC."""
    shutil.copy(empty_store, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_EXP_NAME", "DVC_STAGE", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def client_of(folder):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def runs_of(folder):
    """Returns all runs, oldest first."""
    client = client_of(folder)
    experiment = client.get_experiment_by_name("mini-genie")
    return client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])


def child_and_parent(folder):
    runs = runs_of(folder)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(runs) == 2
    assert len(children) == 1
    return children[0], client_of(folder).get_run(children[0].data.tags["mlflow.parentRunId"])


def test_what_is_logged_can_be_read_back(project, tiny_params, capfd):
    (project / "dvc.yaml").write_text("stages: {train_lam: {params: [lam, runtime.precision], deps: [data/frames]}}")
    (project / "dvc.lock").write_text("stages: {collect: {outs: [{path: data/frames, md5: abc.dir, size: 7}]}}")
    (project / "report").mkdir()
    (project / "report" / "table.csv").write_text("a,b")
    with open_tracker("train_lam", tiny_params) as tracker:
        for step in (10, 20):
            tracker.log_metrics({"train_loss": np.float32(1 / step), "lr": 1e-3}, step=step)
            tracker.log_image("samples", IMAGE_HWC, step=step)
        tracker.log_final({"psnr": 20.5})
        tracker.log_artifact("report")
        tracker.log_artifact("report/table.csv")
        run_id = tracker.run_id

    child, parent = child_and_parent(project)
    client = client_of(project)
    assert child.info.run_id == run_id
    assert child.info.run_name == "train_lam"
    points = [(point.step, point.value) for point in client.get_metric_history(run_id, "train_loss")]
    assert points == [(10, pytest.approx(0.1)), (20, pytest.approx(0.05))]
    assert child.data.metrics["psnr"] == 20.5
    assert parent.data.metrics["train_lam.psnr"] == 20.5
    assert {key.partition(".")[0] for key in child.data.params} == {"lam", "runtime"}
    assert child.data.params["lam.surprise.lr"] == str(tiny_params.lam.surprise.lr)
    assert "runtime.precision" in child.data.params
    assert "runtime.device" not in child.data.params
    assert parent.data.params["collect.frames.train"] == str(tiny_params.collect.frames.train)
    assert child.data.tags["dvc.deps.data/frames"] == "abc.dir"
    [dataset] = [used.dataset for used in client.get_run(run_id).inputs.dataset_inputs]
    assert (dataset.name, dataset.digest) == ("frames", "abc.dir")
    assert json.loads(dataset.profile) == {"size": 7}
    assert len([file for file in client.list_artifacts(run_id, "images") if file.path.endswith("png")]) == 2
    assert {file.path for file in client.list_artifacts(run_id)} >= {"report", "table.csv"}
    assert (project / "mlartifacts").is_dir()
    assert [run.info.status for run in (child, parent)] == ["FINISHED", "FINISHED"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fault", "status"), [(ValueError, "FAILED"), (KeyError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_a_failure_is_recorded_and_passed_on(project, tiny_params, fault, status):
    with pytest.raises(fault), open_tracker("collect", tiny_params):
        raise fault
    assert [run.info.status for run in child_and_parent(project)] == [status, status]


def test_stages_of_one_dvc_process_share_a_parent(project):
    (project / "dvc").write_text(DVC)
    (project / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_EXP_NAME": "bold-newt"}
    pipelines = [["train_lam", "evaluate"], ["evaluate"]]
    for stages in pipelines:
        subprocess.run([sys.executable, "dvc", STAGE, *stages], check=True, env=environment)
    runs = runs_of(project)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    for stages, parent in zip(pipelines, parents, strict=True):
        children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert parent.info.run_name == "bold-newt"
        assert parent.info.status == "FINISHED"
        assert parent.data.metrics == {f"{stage}.psnr": 20.0 for stage in stages}
        assert [run.info.run_name for run in children] == stages


def test_an_experiment_in_a_temporary_copy_is_kept_at_the_root(project, tiny_params, monkeypatch):
    (project / "copy").mkdir()
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.chdir(project / "copy")
    with open_tracker("collect", tiny_params) as tracker:
        tracker.log_image("samples", IMAGE_HWC, step=0)
    assert list((project / "copy").iterdir()) == []
    assert child_and_parent(project)[0].info.artifact_uri.startswith((project / "mlartifacts").as_uri())


def test_store_and_experiment_may_be_chosen(project, tiny_params, monkeypatch, tmp_path_factory, empty_store):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(empty_store, elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "castles")
    monkeypatch.setattr("genie.pipeline.mlflow_runs.PARAMS_A_REQUEST", 7)
    with open_tracker("collect", tiny_params) as tracker:
        tracker.log_metrics({"train_loss": 0.5}, step=1)
    client = client_of(elsewhere)
    experiment = client.get_experiment_by_name("castles")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    child, parent = client.search_runs([experiment.experiment_id])
    assert child.data.metrics == {"train_loss": 0.5}
    assert parent.data.params["evaluate.seed"] == str(tiny_params.evaluate.seed)
    assert client_of(project).get_experiment_by_name("mini-genie") is None


def test_a_parent_is_called_after_the_commit(project, tiny_params):
    subprocess.run(["git", "init", "--quiet"], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a"]
    subprocess.run(["git", *author, "commit", "--quiet", "--allow-empty", "--message=a"], check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True)
    with open_tracker("collect", tiny_params):
        pass
    assert child_and_parent(project)[1].info.run_name == f"collect by hand {commit[:7]}"


def test_parallel_first_runs_make_one_store(project):
    (project / "mlflow.db").unlink()
    (project / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", STAGE, "collect"]
    processes = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(runs_of(project)) == 4


def test_an_earlier_run_is_gone_on_with(project, tiny_params):
    with open_tracker("train_lam", tiny_params) as tracker:
        tracker.log_metrics({"train_loss": 0.5}, step=1)
        earlier = tracker.run_id
    with open_tracker("train_lam", tiny_params) as tracker:
        tracker.resume(earlier)
        tracker.log_metrics({"train_loss": 0.25}, step=2)
        assert tracker.run_id == earlier

    client = client_of(project)
    stages = [run for run in runs_of(project) if run.info.run_name == "train_lam"]
    assert [run.info.run_id for run in stages] == [earlier]
    assert stages[0].info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(earlier, "train_loss")] == [1, 2]
    newest_parent = runs_of(project)[-1]
    assert stages[0].data.tags["mlflow.parentRunId"] == newest_parent.info.run_id


def test_a_run_that_the_store_has_lost_is_not_gone_on_with(project, tiny_params):
    with open_tracker("train_lam", tiny_params) as tracker:
        fresh = tracker.run_id
        tracker.resume("0" * 32)
        assert tracker.run_id == fresh
    assert child_and_parent(project)[0].info.run_id == fresh


def test_system_metrics_are_sampled(project, tiny_params, monkeypatch):
    monkeypatch.setattr("genie.pipeline.mlflow_runs.SECONDS_PER_SYSTEM_SAMPLE", 0.05)
    with open_tracker("collect", tiny_params) as tracker:
        for _ in range(200):
            if "system/cpu_utilization_percentage" in client_of(project).get_run(tracker.run_id).data.metrics:
                return
            psutil.cpu_percent(interval=0.05)
    pytest.fail("no system metrics in ten seconds")


def test_a_store_that_cannot_be_used_is_named_and_ends_no_stage(project, tiny_params, capfd):
    with open_tracker("collect", tiny_params):
        pass
    client_of(project).delete_experiment("1")
    capfd.readouterr()
    with open_tracker("collect", tiny_params) as tracker:
        tracker.log_final({"frames": 1})
    assert isinstance(tracker, NullTracker)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("MLflow cannot use ")
    assert line.endswith("; collect goes on unrecorded")
    assert "mlflow.db" in line


@contextmanager
def out_of_reach(folder):
    """Makes every request to the store fail; with a lock, MLflow would wait twenty seconds for each."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        store.execute("ALTER TABLE runs RENAME TO runs_away")
        yield
        store.execute("ALTER TABLE runs_away RENAME TO runs")


def test_what_is_recorded_while_the_store_is_out_of_reach_is_written_later(project, tiny_params, monkeypatch, capfd):
    monkeypatch.setattr("genie.pipeline.mlflow_runs.SECONDS_BETWEEN_TRIES", 0)
    with open_tracker("train_lam", tiny_params) as tracker:
        tracker.log_metrics({"train_loss": 3.0}, step=1)
        with out_of_reach(project):
            tracker.log_metrics({"train_loss": 2.0}, step=2)
            tracker.log_metrics({"train_loss": 1.0}, step=3)
            tracker.log_image("samples", IMAGE_HWC, step=3)
        tracker.log_final({"psnr": 20.0})
    child, parent = child_and_parent(project)
    points = client_of(project).get_metric_history(child.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in points] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert len(client_of(project).list_artifacts(child.info.run_id, "images")) > 0
    assert parent.data.metrics == {"train_lam.psnr": 20.0}
    assert child.info.status == parent.info.status == "FINISHED"
    lost, found = capfd.readouterr().err.splitlines()
    assert lost.startswith("MLflow cannot be reached (")
    assert lost.endswith("train_lam goes on, and what it records waits")
    assert found == "MLflow can be reached again; what waited is recorded"


def test_a_store_that_is_lost_ends_no_training(project, tiny_params, capfd):
    with ExitStack() as stack:
        tracker = stack.enter_context(open_tracker("train_lam", tiny_params))
        with out_of_reach(project):
            tracker.log_metrics({"train_loss": 2.0}, step=2)
            tracker.log_metrics({"train_loss": 1.0}, step=3)
            stack.close()
    _, said = capfd.readouterr().err.splitlines()
    assert said.startswith("4 records of train_lam are lost: MLflow cannot be reached (")


def test_trackers_take_the_calls_of_their_interface_and_no_others():
    public = {name for name in vars(Tracker) if not name.startswith("_")}
    assert {name for name in vars(MlflowTracker) if not name.startswith("_")} == public | {"close"}
    tracker = NullTracker()
    tracker.log_metrics({"loss": 1.0}, step=1)
    tracker.resume("a run")


def test_a_world_is_logged_as_a_model_that_mlflow_plays(project, tiny_params, tiny_world, tmp_path, capfd, recwarn):
    import mlflow
    from mlflow.exceptions import MlflowException

    tiny_world.save_pretrained(tmp_path / "castle")
    try:
        with open_tracker("evaluate", tiny_params) as tracker:
            tracker.log_world(tmp_path / "castle", tiny_world.frame_shape)
            assert client_of(project).get_run(tracker.run_id).info.status == "RUNNING"
            run_id = tracker.run_id
    finally:
        mlflow.set_tracking_uri(None)  # global to the process, and other tests share it
    assert capfd.readouterr() == ("", "")
    assert child_and_parent(project)[0].info.status == "FINISHED"
    [model_output] = client_of(project).get_run(run_id).outputs.model_outputs

    world, prompt = WorldModel.from_pretrained(tmp_path / "castle"), tiny_world.prompts[0].frames_THWC
    world.reset(prompt, seed=3)
    expected_SHWC = [world.step(action) for action in (1, 0, 4)]
    for uri in (f"runs:/{run_id}/world", f"models:/{model_output.model_id}"):
        model = mlflow.pyfunc.load_model(uri)
        for _ in range(2):
            shown_SHWC = model.predict({"prompt": prompt, "actions": np.array([1, 0, 4])}, params={"seed": 3})
            assert np.array_equal(shown_SHWC, expected_SHWC)
        with pytest.raises(MlflowException, match="prompt"):
            model.predict({"prompt": prompt[0], "actions": np.array([1])})
        folder = Path(mlflow.artifacts.download_artifacts(uri))
        fetched = folder / "artifacts" / "castle"
        assert (fetched / "model.safetensors").read_bytes() == (tmp_path / "castle/model.safetensors").read_bytes()
        logged = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert [str(warning.message) for warning in recwarn if warning.category is UserWarning] == []
        assert logged <= {".py", ".json", ".safetensors", ".md", ".npz", ".yaml", ".txt", ""}, "no pickle"

"""The whole pipeline, tiny, through the real `dvc repro` on real CoinRun, and experiments on top of it."""

import csv
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns, rmtree

import numpy as np
import psutil
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML
from safetensors.torch import load_file

from genie.data.buttons import read_buttons
from genie.params import read_yaml

ROOT = Path(__file__).resolve().parents[1]
STAGES = list(read_yaml(ROOT / "dvc.yaml")["stages"])

PLAY = """
import sys
import mlflow
import numpy as np
from genie.world import WorldModel
prompts = WorldModel.from_pretrained(mlflow.artifacts.download_artifacts(sys.argv[1]) + "/artifacts/world").prompts
model = mlflow.pyfunc.load_model(sys.argv[1])
frames = model.predict({"prompt": prompts[0].frames_THWC, "actions": np.array([0, 7, 3])})
print(len(prompts), "prompts, frames", frames.shape)
"""


class Project:
    """A copy of this work tree in a repository of its own."""

    def __init__(self, root: Path, params: dict):
        self.root = root
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, files.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("data/"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                copy2(ROOT / name, root / name)
        (root / "dvc.lock").unlink(missing_ok=True)
        YAML().dump(params, root / "params.yaml")

        self.run("git", "init", "--quiet")
        self.run("git", "config", "user.name", "test")
        self.run("git", "config", "user.email", "test@localhost")
        self.commit("start")

    @classmethod
    def at(cls, root: Path) -> "Project":
        """One that is there already."""
        project = cls.__new__(cls)
        project.root = root
        return project

    def started(self, *command: str, **options) -> subprocess.Popen:
        """Starts a command at the root, with the virtual environment's programs first."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC", "GIT_", "MLFLOW"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**kept, "PATH": path, "TQDM_DISABLE": "1", "DVC_NO_ANALYTICS": "true"}
        return subprocess.Popen(command, cwd=self.root, env=environment, **options)

    def run(self, *command: str) -> str:
        """Runs a command so, to its end; returns stdout."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self.started(*command, **pipes) as process:
            told, faults = process.communicate()
        assert process.returncode == 0, f"{' '.join(command)}\n{told[-4000:]}\n{faults[-4000:]}"
        return told

    def dvc(self, *arguments: str) -> str:
        """Runs DVC."""
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def commit(self, message: str) -> None:
        """Commits all that is not ignored."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def runs(self) -> dict[str, list[Run]]:
        """The runs that MLflow holds, each pipeline's stages by the name of the pipeline's run."""
        client = MlflowClient(f"sqlite:///{self.root}/mlflow.db")
        runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        parents = {run.info.run_id: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
        return {
            parent.info.run_name: [run for run in runs if run.data.tags.get("mlflow.parentRunId") == run_id]
            for run_id, parent in parents.items()
        }

    def curve(self, run: Run, key: str) -> list[int]:
        """The steps at which a metric was logged."""
        history = MlflowClient(f"sqlite:///{self.root}/mlflow.db").get_metric_history(run.info.run_id, key)
        return [point.step for point in history]


def stages_run(output: str) -> list[str]:
    """The stages that DVC says it executed."""
    return re.findall(r"Running stage '(\w+)'", output)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_tree) -> Project:
    """The project after a first `dvc repro`."""
    project = Project(tmp_path_factory.mktemp("project"), tiny_tree)
    assert sorted(stages_run(project.dvc("repro"))) == sorted(STAGES)
    changed = {line[3:] for line in project.run("git", "status", "--porcelain").splitlines()}
    assert changed == {"dvc.lock", "data/"}, "of what the pipeline writes, only the lock and metrics are for git"
    project.commit("first run")
    return project


def test_a_second_repro_runs_nothing(project):
    assert stages_run(project.dvc("repro")) == []
    assert "up to date" in project.dvc("status")


def test_every_stage_wrote_what_it_declares(project):
    for stage in read_yaml(project.root / "dvc.lock")["stages"].values():
        for out in stage["outs"]:
            assert out["size"] > 0
            assert (project.root / out["path"]).exists()
    metrics = {path.stem for path in (project.root / "data/metrics").glob("*.json")}
    assert metrics == {"collect", "tokenizer", "probe", "lam", "dynamics", "evaluate"}


def test_mlflow_holds_a_run_a_stage_with_curves(project):
    (stages,) = project.runs().values()
    assert sorted(run.info.run_name for run in stages) == sorted(STAGES)
    assert {run.info.status for run in stages} == {"FINISHED"}
    for run in stages:
        if run.info.run_name.startswith("train_"):
            longest = max(len(set(project.curve(run, key))) for key in run.data.metrics)
            assert longest > 1, f"{run.info.run_name} has no curve"


def test_metrics_and_plots_show(project):
    shown = json.loads(project.dvc("metrics", "show", "--json"))[""]["data"]
    for name in ("collect", "tokenizer", "probe", "lam", "dynamics", "evaluate"):
        assert shown[f"data/metrics/{name}.json"]["data"]
    project.dvc("plots", "show", "--out", "dvc_plots")
    page = (project.root / "dvc_plots/index.html").read_text()
    pictures = ("reconstructions", "codebook_histogram", "action_table", "counterfactual_confusion", "branches")
    for name in ("train_loss", "copy_last", *pictures):
        assert name in page


def test_the_buttons_go_with_the_models(project):
    buttons = [read_buttons(project.root / f"data/{folder}") for folder in ("models/lam", "actions", "models/dynamics")]
    assert len(buttons[0]) == 8
    assert buttons[1:] == buttons[:-1]


def test_the_world_is_logged_to_be_played_and_exported_to_be_shared(project):
    [run] = [run for run in next(iter(project.runs().values())) if run.info.run_name == "evaluate"]
    played = project.run(sys.executable, "-c", PLAY, f"runs:/{run.info.run_id}/world")
    assert re.fullmatch(r"([1-9]|1[0-2]) prompts, frames \(3, 64, 64, 3\)\n", played)
    said = project.run(sys.executable, "-c", "from genie.cli import app; app()", "export")
    assert said.startswith("wrote world: ")
    assert said.endswith("a card with metrics\n")


def test_an_experiment_reruns_only_what_depends_on_it(project):
    output = project.dvc("exp", "run", "--name", "slower", "--set-param", "dynamics.lr=2e-4")
    assert stages_run(output) == ["train_dynamics", "evaluate"]
    shown = project.dvc("exp", "show", "--csv")
    assert "slower" in shown
    assert "0.0002" in shown
    runs = project.runs()
    assert sorted(run.info.run_name for run in runs["slower"]) == ["evaluate", "train_dynamics"]


def test_the_upper_bound_is_an_experiment_in_a_temporary_copy_tracked_here(project):
    project.run("git", "restore", ".")
    installed = f".venv/installed-{sys.version_info.major}.{sys.version_info.minor}"
    output = project.run("make", "upper-bound", f"PYTHON={sys.executable}", f"--old-file={installed}")
    assert stages_run(output)[-3:] == ["label_actions", "train_dynamics", "evaluate"]
    assert "evaluate" in [run.info.run_name for run in project.runs()["true-actions"]]
    assert project.run("git", "status", "--porcelain").split() == ["??", "data/metrics/true_actions.json"]
    told = json.loads((project.root / "data/metrics/true_actions.json").read_text())
    assert told["action_nmi"] == 1
    assert told.keys() == json.loads((project.root / "data/metrics/evaluate.json").read_text()).keys()


def test_seeds_are_queued_experiments_and_summed_up_here(project):
    project.run("git", "restore", ".")
    installed = f".venv/installed-{sys.version_info.major}.{sys.version_info.minor}"
    project.run("make", "seeds", "SEEDS=1", f"PYTHON={sys.executable}", f"--old-file={installed}")
    spread = json.loads((project.root / "data/metrics/seeds.json").read_text())
    assert spread["seeds"] == [0, 1]
    own = json.loads((project.root / "data/metrics/evaluate.json").read_text())
    assert spread["evaluate"]["psnr_moving"]["values"][0] == own["psnr_moving"]
    assert spread["evaluate"]["psnr_moving"]["std"] > 0
    runs = [run.info.run_name for run in project.runs()["seed-1"]]
    assert {"train_lam", "train_dynamics", "evaluate"} <= set(runs)
    assert not {"collect", "train_tokenizer", "tokenize"} & set(runs), "on no seed do these depend"
    assert "data/metrics/seeds.json" in project.run("git", "status", "--porcelain")


SHARDED = {"collect": "frames", "tokenize": "tokens"}  # stages, and what they write
TRAININGS = ["train_tokenizer", "train_probe", "train_lam", "train_dynamics"]


@pytest.fixture
def trained(project, tmp_path) -> Project:
    """A copy of the project whose data are those of its first run, for a stage to be run in by hand."""
    project.run("git", "restore", ".")
    project.dvc("checkout", "--force")
    copytree(project.root, tmp_path / "copy", ignore=ignore_patterns(".dvc", "mlflow.db", "mlartifacts"))
    return Project.at(tmp_path / "copy")


def set_processes(project: Project, count: int) -> None:
    """Has stages run in so many processes."""
    params = read_yaml(project.root / "params.yaml")
    YAML().dump(params | {"runtime": params["runtime"] | {"processes": count}}, project.root / "params.yaml")


def results_of(project: Project, stage: str) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """The weights that a training wrote, and its losses."""
    name = stage.removeprefix("train_")
    with (project.root / f"data/curves/{name}.csv").open() as file:
        losses = np.array([float(row["train_loss"]) for row in csv.DictReader(file)])
    return load_file(project.root / f"data/models/{name}/model.safetensors"), losses


@pytest.mark.parametrize("stage", TRAININGS)
def test_two_processes_train_as_one_does(trained, stage):
    """Half of each batch each; sums in another order round otherwise, and no more."""
    weights, losses = results_of(trained, stage)
    set_processes(trained, 2)
    trained.run(sys.executable, "-m", f"stages.{stage}")
    shared_weights, shared_losses = results_of(trained, stage)
    assert shared_losses == pytest.approx(losses, rel=1e-3)
    assert shared_weights.keys() == weights.keys()
    for name, weight in weights.items():
        if not name.startswith("quantizer."):  # a vector halfway between two codes may fall to the other
            torch.testing.assert_close(shared_weights[name], weight, rtol=0.01, atol=0.01, msg=name)
    assert [run.info.status for run in trained.runs()[f"{stage} by hand"]] == ["FINISHED"], "one run, of the first"


@pytest.mark.parametrize("stage", TRAININGS)
def test_a_killed_training_goes_on_to_the_same_bytes(trained, stage, request):
    """Killed once soon after it saved; then, with `--kills`, each time at any moment of a run."""
    name = stage.removeprefix("train_")
    outs = [trained.root / f"data/{out}" for out in (f"models/{name}/model.safetensors", f"curves/{name}.csv")]
    wanted = [out.read_bytes() for out in outs]
    states, rng = trained.root / ".cache/resume" / stage, random.Random(stage)
    seconds_of_a_run = None
    for _ in range(request.config.getoption("--kills")):
        for out in outs:
            out.unlink(missing_ok=True)
        with trained.started(sys.executable, "-m", f"stages.{stage}") as process:
            if seconds_of_a_run is None:
                while not list(states.glob("*/state.pt")):
                    assert process.poll() is None, "it ended before it saved anything"
                    time.sleep(0.01)
                time.sleep(rng.uniform(0, 1))
            else:
                time.sleep(rng.uniform(0, seconds_of_a_run))
            process.kill()
        start = time.monotonic()
        trained.run(sys.executable, "-m", f"stages.{stage}")
        seconds_of_a_run = time.monotonic() - start
        assert [out.read_bytes() for out in outs] == wanted
        assert not list(states.glob("*")), "what is saved goes when the stage ends"


def test_a_killed_process_ends_all_with_one_line_and_they_go_on(trained):
    set_processes(trained, 2)
    with trained.started(sys.executable, "-m", "stages.train_lam", stderr=subprocess.PIPE, text=True) as process:
        while not list((trained.root / ".cache/resume/train_lam").glob("*/state.pt")):
            assert process.poll() is None, "it ended before it saved anything"
            time.sleep(0.01)
        ranks = psutil.Process(process.pid).children()
        ranks[1].kill()
        _, told = process.communicate()
    assert process.returncode == 1
    [line] = [line for line in told.splitlines() if line.startswith("train_lam:")]
    assert line.endswith("process 1 of 2: was killed (SIGKILL); run the same command again to continue")
    assert "Traceback" not in told
    trained.run(sys.executable, "-m", "stages.train_lam")
    assert len(results_of(trained, "train_lam")[1]) == 12


def shards_in(folder: Path) -> dict[str, bytes]:
    """All files of a stage's out."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("stage", SHARDED)
def test_two_processes_write_the_bytes_of_one(trained, stage):
    out = trained.root / "data" / SHARDED[stage]
    wanted = shards_in(out)
    assert len(wanted) == 5
    rmtree(out)
    metrics = trained.root / "data/metrics/collect.json"
    measured = metrics.read_bytes()
    set_processes(trained, 2)
    trained.run(sys.executable, "-m", f"stages.{stage}")
    assert shards_in(out) == wanted
    assert metrics.read_bytes() == measured
    assert not list((trained.root / ".cache/resume" / stage).iterdir())
    assert [run.info.status for run in trained.runs()[f"{stage} by hand"]] == ["FINISHED"], "one run, of the first"


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stage", SHARDED)
def test_what_a_killed_stage_has_finished_is_kept(trained, stage, processes):
    out, waiting = trained.root / "data" / SHARDED[stage], trained.root / ".cache/resume" / stage
    wanted = shards_in(out)
    rmtree(out)
    set_processes(trained, processes)
    with trained.started(sys.executable, "-m", f"stages.{stage}") as process:
        while not (found := list(waiting.glob("*/*/*.h5"))):
            assert process.poll() is None, "it ended before it finished a shard"
            time.sleep(0.001)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            member.kill()
        psutil.wait_procs(family[1:])
    kept = {path.relative_to(path.parents[1]): path.stat() for path in found}
    assert not out.exists()
    trained.run(sys.executable, "-m", f"stages.{stage}")
    assert shards_in(out) == wanted
    assert not list(waiting.iterdir())
    for name, before in kept.items():
        after = (out / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "written once"


@pytest.mark.parametrize("stage", SHARDED)
def test_more_processes_than_shards_is_one_line_before_anything_is_done(trained, stage):
    set_processes(trained, 6)
    rmtree(trained.root / "data" / SHARDED[stage])
    with trained.started(sys.executable, "-m", f"stages.{stage}", stderr=subprocess.PIPE, text=True) as process:
        _, told = process.communicate()
    assert process.returncode == 1
    assert re.search(rf"^{stage}: .*runtime\.processes: 6 .* 5 shards; .* lower collect\.shard_frames$", told, re.M)
    assert "Traceback" not in told
    assert not list((trained.root / ".cache/resume").glob(f"{stage}/*"))

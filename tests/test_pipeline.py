"""The whole pipeline, tiny, through the real `dvc repro` on real CoinRun, and experiments on top of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import copy2

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

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

    def run(self, *command: str) -> str:
        """Runs a command at the root, with the virtual environment's programs first; returns stdout."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC", "GIT_", "MLFLOW"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**kept, "PATH": path, "TQDM_DISABLE": "1", "DVC_NO_ANALYTICS": "true"}
        run = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
        return run.stdout

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

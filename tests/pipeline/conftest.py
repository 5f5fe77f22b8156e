"""The real pipeline in a tiny project of its own, after its first `dvc repro` on real CoinRun."""

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

from genie.core.yaml_files import read_yaml
from tests.conftest import ROOT

STAGES = list(read_yaml(ROOT / "dvc.yaml")["stages"])


class Project:
    """A copy of this work tree in a repository of its own."""

    def __init__(self, root: Path, params: dict):
        self.root = root
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, files.split("\0")):
            if (ROOT / name).is_file() and not name.startswith("data/metrics/"):
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
        """Opens an existing project."""
        project = cls.__new__(cls)
        project.root = root
        return project

    def started(self, *command: str, **options) -> subprocess.Popen:
        """Starts a command at the root, with the virtual environment's programs first in PATH."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC", "GIT_", "MLFLOW"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**kept, "PATH": path, "TQDM_DISABLE": "1", "DVC_NO_ANALYTICS": "true"}
        return subprocess.Popen(command, cwd=self.root, env=environment, **options)

    def run(self, *command: str) -> str:
        """Runs such a command to its end; returns stdout."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self.started(*command, **pipes) as process:
            told, faults = process.communicate()
        assert process.returncode == 0, f"{' '.join(command)}\n{told[-4000:]}\n{faults[-4000:]}"
        return told

    def dvc(self, *arguments: str) -> str:
        """Runs DVC."""
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def commit(self, message: str) -> None:
        """Commits everything that is not ignored."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def runs(self) -> dict[str, list[Run]]:
        """Returns MLflow's runs of each pipeline's stages, by the name of the pipeline's run without its commit."""
        client = MlflowClient(f"sqlite:///{self.root}/mlflow.db")
        runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        parents = {run.info.run_id: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
        return {
            re.sub(r" [0-9a-f]{7}$", "", parent.info.run_name): [
                run for run in runs if run.data.tags.get("mlflow.parentRunId") == run_id
            ]
            for run_id, parent in parents.items()
        }

    def curve(self, run: Run, key: str) -> list[int]:
        """Returns the steps at which a metric was logged."""
        history = MlflowClient(f"sqlite:///{self.root}/mlflow.db").get_metric_history(run.info.run_id, key)
        return [point.step for point in history]

    @staticmethod
    def stages_run(output: str) -> list[str]:
        """Returns the stages that DVC says it executed."""
        return re.findall(r"Running stage '(\w+)'", output)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_tree) -> Project:
    """The project after a first `dvc repro`."""
    project = Project(tmp_path_factory.mktemp("project"), tiny_tree)
    assert sorted(project.stages_run(project.dvc("repro"))) == sorted(STAGES)
    changed = {line[3:] for line in project.run("git", "status", "--porcelain").splitlines()}
    assert changed == {"dvc.lock", "data/metrics/"}, "of all that is written, only the lock and metrics are for git"
    project.commit("first run")
    return project

"""`dvc repro` runs nothing twice, and experiments run on top of it."""

import hashlib
import json
import re
import sys

import pytest

from genie.core.yaml_files import read_yaml
from genie.world.controls import read_buttons
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

STAGES = list(read_yaml(ROOT / "dvc.yaml")["stages"])

PLAY = """
import sys
import mlflow
import numpy as np
from genie.world import WorldModel
prompts = WorldModel.from_pretrained(mlflow.artifacts.download_artifacts(sys.argv[1]) + "/artifacts/world").prompts
model = mlflow.pyfunc.load_model(sys.argv[1])
frames = model.predict({"prompt": prompts[0].frames_THWC, "actions": np.array([0, 5, 3])})
print(len(prompts), "prompts, frames", frames.shape)
"""


def test_a_second_repro_runs_nothing(project):
    assert project.stages_run(project.dvc("repro")) == []
    assert "up to date" in project.dvc("status")


def test_every_stage_wrote_what_it_declares(project):
    for stage in read_yaml(project.root / "dvc.lock")["stages"].values():
        for out in stage["outs"]:
            assert out["size"] > 0
            assert (project.root / out["path"]).exists()
    metrics = {path.stem for path in (project.root / "data/metrics").glob("*.json")}
    assert metrics == {
        "collect",
        "tokenizer",
        "probe",
        "lam",
        "motion",
        "steering",
        "dynamics",
        "evaluate",
        "fingerprints",
    }


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
    for name in ("collect", "tokenizer", "probe", "lam", "motion", "steering", "dynamics", "evaluate"):
        assert shown[f"data/metrics/{name}.json"]["data"]
    project.dvc("plots", "show", "--out", "dvc_plots")
    page = (project.root / "dvc_plots/index.html").read_text()
    pictures = ("reconstructions", "codebook_histogram", "action_table", "counterfactual_confusion", "branches")
    for name in ("train_loss", "copy_last", *pictures, "steering"):
        assert name in page


def test_the_buttons_go_with_the_models(project):
    assert len(read_buttons(project.root / "data/models")) == 6


def test_the_world_is_logged_to_be_played_and_exported_to_be_shared(project):
    [run] = [run for run in next(iter(project.runs().values())) if run.info.run_name == "evaluate"]
    played = project.run(sys.executable, "-c", PLAY, f"runs:/{run.info.run_id}/world")
    assert re.fullmatch(r"([1-9]|1[0-2]) prompts, frames \(3, 64, 64, 3\)\n", played)
    said = project.run(sys.executable, "-c", "from genie.cli import app; app()", "export")
    assert said.startswith("wrote world: ")
    assert said.endswith("a card with metrics\n")


def test_stages_run_by_hand_leave_the_cache_of_dvc_as_it_was(project):
    """Outputs may be hard links into the cache. A stage that wrote into them would change cached files."""
    project.dvc("config", "--local", "cache.type", "hardlink")
    project.dvc("checkout", "--relink")
    report = project.root / "data/report/branches.png"
    cached = [path for path in (project.root / ".dvc/cache/files/md5").glob("*/*") if path.is_file()]
    assert report.stat().st_nlink > 1, "no hard link, so the test would prove little"
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("action_repeat: 4", "action_repeat: 5"))
    for stage in ("label_actions", "evaluate"):
        project.run(sys.executable, "-m", f"stages.{stage}")
    assert report.stat().st_nlink == 1
    spoilt = [
        path
        for path in cached
        if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name.removesuffix(".dir")
    ]
    assert spoilt == []
    project.run("git", "restore", ".")
    project.dvc("config", "--local", "--unset", "cache.type")
    project.dvc("checkout", "--force", "--relink")
    assert "up to date" in project.dvc("status")


def test_an_experiment_reruns_only_what_depends_on_it(project):
    output = project.dvc("exp", "run", "--name", "slower", "--set-param", "dynamics.lr=2e-4")
    assert project.stages_run(output) == ["train_dynamics", "evaluate"]
    shown = project.dvc("exp", "show", "--csv")
    assert "slower" in shown
    assert "0.0002" in shown
    runs = project.runs()
    assert sorted(run.info.run_name for run in runs["slower"]) == ["evaluate", "train_dynamics"]


def test_the_upper_bound_is_an_experiment_in_a_temporary_copy_tracked_here(project):
    project.run("git", "restore", ".")
    installed = f".venv/installed-{sys.version_info.major}.{sys.version_info.minor}"
    output = project.run("make", "upper-bound", f"PYTHON={sys.executable}", f"--old-file={installed}")
    assert project.stages_run(output)[-5:] == [
        "label_actions",
        "train_motion",
        "train_steering",
        "train_dynamics",
        "evaluate",
    ]
    assert "evaluate" in [run.info.run_name for run in project.runs()["true-actions"]]
    assert project.run("git", "status", "--porcelain").split() == ["??", "data/metrics/true_actions.json"]
    told = json.loads((project.root / "data/metrics/true_actions.json").read_text())
    assert told["action_nmi"] == 1
    own = json.loads((project.root / "data/metrics/evaluate.json").read_text())
    assert told.keys() == {name for name in own if "_inferred" not in name}, "nothing is inferred where it is told"


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

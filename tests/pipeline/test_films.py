"""The pipeline on a film without true actions, judged by them, and then on the same film with its sidecar."""

import json
import sys
from pathlib import Path
from shutil import copy2

import pytest

from genie.data.episodes import EpisodeStore
from genie.world import WorldModel
from genie.world.controls import read_buttons
from genie.world.maskgit import Sampling
from tests.assets.ball_film import FILM, KEYS, SIZE
from tests.conftest import merged
from tests.pipeline.conftest import STAGES, Project
from tools.films import SIDECAR

pytestmark = pytest.mark.slow

GENIE = (sys.executable, "-c", "from genie.cli import app; app()")  # of the project's copy
COLLECT = {"source": "films", "frame_size": SIZE, "films": {"fps": 15.0, "held_out": 0.25, "shortest_episode": 16}}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, tiny_tree) -> Project:
    """The project after `genie import` of the film alone, and `dvc repro`."""
    folder = tmp_path_factory.mktemp("films")
    copy2(FILM, folder / "ball.mp4")
    project = Project(tmp_path_factory.mktemp("project"), merged(tiny_tree, {"collect": COLLECT}))
    project.run(*GENIE, "import", str(folder / "ball.mp4"))
    assert sorted(project.stages_run(project.dvc("repro"))) == sorted(STAGES)
    project.commit("first run")
    return project


@pytest.fixture(scope="module")
def verdict(unlabelled) -> dict:
    """What the judge says of that run."""
    told = unlabelled.run(sys.executable, "-m", "tools.judge_films", str(FILM.parent), "--out", "verdict.json")
    assert "action_nmi of the probe" in told
    return json.loads((unlabelled.root / "verdict.json").read_text())


def metrics(root: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in (root / "data/metrics").glob("*.json")}


def test_without_true_actions_nothing_is_said_of_them(unlabelled):
    store = EpisodeStore(unlabelled.root / "data/frames/test")
    assert store.films == ("ball.mp4",)
    assert not store.action_names
    found = metrics(unlabelled.root)
    assert not found.get("probe")
    assert {"psnr", "psnr_moving"} <= found["evaluate"].keys()
    of_actions = ("action_nmi", "counterfactual_accuracy", "steering_accuracy")
    assert [name for name in of_actions if name in found["evaluate"] | found["lam"]] == []
    assert all(not button.names for button in read_buttons(unlabelled.root / "data/models"))
    assert unlabelled.stages_run(unlabelled.dvc("repro")) == []


def test_the_world_plays(unlabelled):
    world = WorldModel.load(unlabelled.root / "data/models", Sampling(maskgit_steps=1, temperature=0.0))
    assert world.steering is None
    store = EpisodeStore(unlabelled.root / "data/frames/test")
    world.reset(store.read(0, world.context_frames))
    assert world.step(3).shape == store.frame_shape == (SIZE, SIZE, 3)


def test_the_judge_counts_every_transition_of_the_test_split(unlabelled, verdict):
    store = EpisodeStore(unlabelled.root / "data/frames/test")
    assert sorted(verdict["hidden_actions"]) == sorted(KEYS)
    assert sum(map(sum, verdict["counts"])) == len(store) - len(store.episode_starts)
    assert 0 <= verdict["action_nmi"] <= 1
    assert not list((unlabelled.root / ".cache/resume").glob("judge_films/*")), "nothing is left of its training"


def test_a_sidecar_brings_the_true_actions_back(unlabelled, verdict):
    copy2(FILM.with_suffix(SIDECAR), unlabelled.root / "data/films")
    before = {path.name: path.read_bytes() for path in (unlabelled.root / "data/models/tokenizer").iterdir()}
    assert "collect" in unlabelled.stages_run(unlabelled.dvc("repro"))
    after = {path.name: path.read_bytes() for path in (unlabelled.root / "data/models/tokenizer").iterdir()}
    assert after == before, "the tokenizer never sees actions"
    store = EpisodeStore(unlabelled.root / "data/frames/test")
    assert sorted(store.action_names) == sorted(KEYS)
    found = metrics(unlabelled.root)
    assert found["evaluate"]["action_nmi"] == pytest.approx(verdict["action_nmi"], abs=1e-3)
    assert found["probe"]["accuracy"] > 0
    assert all(set(button.names) == set(KEYS) for button in read_buttons(unlabelled.root / "data/models"))

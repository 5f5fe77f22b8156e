from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from genie.cli import app
from genie.core.params import load_params
from genie.distributed import processes
from genie.models.checkpoint import save_model
from genie.play.opening import batch_threads, open_world
from genie.world.controls import write_buttons
from genie.world.maskgit import Sampling
from genie.world.pretrained import PretrainedError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def threads():
    """Restores torch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def same(one, other):
    """Returns whether two worlds dream the same."""
    frames = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3), dtype=np.uint8)
    return np.array_equal(one.reset(frames), other.reset(frames)) and np.array_equal(one.step(1), other.step(1))


@pytest.fixture
def exported(tiny_world, tmp_path):
    tiny_world.save_pretrained(tmp_path / "world")
    return tmp_path / "world"


def test_a_world_is_a_folder(exported, tiny_params):
    world = open_world(str(exported), tiny_params)
    assert same(world, type(world).from_pretrained(exported))
    assert len(world.prompts) == 3


def test_threads_of_a_batch_and_of_torch_use_no_more_than_the_cores(exported, tiny_params, monkeypatch):
    def threads(num_cores, chosen=None):
        monkeypatch.setattr(processes, "num_cores", lambda: num_cores)
        runtime = tiny_params.runtime.model_copy(update={"threads": chosen})
        open_world(str(exported), tiny_params.model_copy(update={"runtime": runtime}))
        return batch_threads(runtime), torch.get_num_threads()

    assert [threads(cores) for cores in (1, 2, 3, 4, 16)] == [(1, 1), (2, 1), (1, 2), (1, 3), (1, 15)]
    assert [threads(4, chosen) for chosen in (1, 2)] == [(1, 1), (1, 2)]


def test_a_world_is_what_a_run_trained(tiny_world, tiny_params, tmp_path):
    for model in (tiny_world.tokenizer, tiny_world.dynamics, tiny_world.steering):
        save_model(tmp_path / model.kind, model)
    write_buttons(tmp_path, tiny_world.buttons)
    tiny_world.sampling = Sampling(**tiny_params.sampling.model_dump())
    assert same(open_world(str(tmp_path), tiny_params), tiny_world)


def test_what_a_run_trained_starts_from_its_held_out_levels(pipeline):
    params = load_params()
    assert CliRunner().invoke(app, ["export"]).exit_code == 0
    prompts, exported = (open_world(source, params).prompts for source in ("data/models", "world"))
    assert len(prompts) == len(exported) > 0
    assert all(np.array_equal(one.frames_THWC, other.frames_THWC) for one, other in zip(prompts, exported, strict=True))
    Path("data/actions/test.h5").unlink()
    assert open_world("data/models", params).prompts == ()


def test_a_world_is_what_mlflow_holds(exported, tiny_params, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("it", artifact_location=str(tmp_path / "artifacts")))
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(exported), "model/artifacts/world")
        mlflow.log_artifacts(str(exported), "other")
    world = open_world(f"runs:/{run.info.run_id}/model", tiny_params)
    assert same(world, type(world).from_pretrained(exported))
    with pytest.raises(PretrainedError, match="a model, but no world"):
        open_world(f"runs:/{run.info.run_id}/other", tiny_params)
    with pytest.raises(PretrainedError, match="MLflow has no such model"):
        open_world("runs:/0123/model", tiny_params)


@pytest.mark.parametrize("source", ["nowhere", "/nowhere/at/all"])
def test_a_world_that_is_not_there_is_told_in_one_line(source, tiny_params):
    with pytest.raises(PretrainedError, match=f"{source}: no such folder") as fault:
        open_world(source, tiny_params)
    assert "\n" not in str(fault.value)


def test_threads_are_those_asked_for(exported, tiny_params):
    for asked in (1, 2):
        runtime = tiny_params.runtime.model_copy(update={"threads": asked})
        open_world(str(exported), tiny_params.model_copy(update={"runtime": runtime}))
        assert torch.get_num_threads() == asked

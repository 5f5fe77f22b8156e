"""A world can be played without the simulator, HDF5, MLflow, DVC and accelerate installed."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from PIL import Image

from tests.conftest import ROOT

PIPELINE = ["accelerate", "dvc", "h5py", "hdf5plugin", "matplotlib", "mlflow", "procgen", "procgen_gym", "psutil"]
PIPELINE += ["ruamel", "scipy", "sklearn", "torchmetrics", "filelock"]
PLAY = ["av", "fastapi", "gymnasium", "pydantic", "typer", "uvicorn", "websockets"]

WITHOUT = """
import sys
sys.modules |= dict.fromkeys({missing})  # so that none of them can be imported or found
"""
STEP = """
from genie.world import WorldModel
world = WorldModel.from_pretrained()
prompt = world.prompts[0]
frame = world.reset(prompt.frames_THWC, actions=prompt.actions)
print(frame.shape, world.step(world.steer(2)).shape, world.imagine().shape)
"""
COMMAND = "from genie.cli import app; app()"


def python(missing, program, *arguments, cwd):
    """Returns `subprocess` arguments to run a program without these packages, in a folder outside the project."""
    # huggingface-hub itself needs filelock.
    missing = set(missing) - {"filelock"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", WITHOUT.format(missing=sorted(missing)) + program, *arguments]
    return {"args": command, "cwd": cwd, "env": environment, "text": True}


def test_the_bare_package_plays_the_shipped_world(tmp_path):
    ran = subprocess.run(**python(PIPELINE + PLAY, STEP, cwd=tmp_path), capture_output=True, check=True)
    assert ran.stdout == "(64, 64, 3) (64, 64, 3) (6, 64, 64, 3)\n"
    assert ran.stderr == ""


def test_samples_are_drawn_of_an_exported_world(tmp_path, tiny_world):
    tiny_world.save_pretrained(tmp_path / "castle")
    words = ["sample", "--world", "castle", "--actions", "0,1", "--quiet"]
    subprocess.run(**python(PIPELINE, COMMAND, *words, cwd=tmp_path), check=True)
    with Image.open(tmp_path / "sample.gif") as shown:
        assert shown.n_frames == len(tiny_world.prompts[0].frames_THWC) + 2
    refused = subprocess.run(
        **python(PIPELINE, COMMAND, *words, "--frame", "3", cwd=tmp_path), capture_output=True, check=False
    )
    assert refused.stderr == ("genie sample: --frame: reading frames needs HDF5: pip install 'mini-genie[train]'\n")


@pytest.fixture
def address(tmp_path, tiny_world):
    """Address of `genie play` without the pipeline."""
    tiny_world.save_pretrained(tmp_path / "castle")
    words = ["play", "--world", "castle", "--no-open", "--port", "0"]
    with subprocess.Popen(**python(PIPELINE, COMMAND, *words, cwd=tmp_path), stdout=subprocess.PIPE) as process:
        yield re.search(r"http://[\d.:]+", process.stdout.readline())[0]
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)


def test_the_page_offers_what_there_is(address, client):
    with client(address, origin=address) as it:
        assert it.hello["levels"] is False
        assert it.ask({"kind": "prompt", "index": 0})[0]["kind"] == "frame"
        assert it.ask({"kind": "steer", "effect": "right"})[0]["kind"] == "frame"
        refused, _ = it.ask({"kind": "level", "level": 3, "twin": True})
        assert "levels need the simulator" in json.dumps(refused)
        assert it.ask({"kind": "press", "action": 1})[0]["step"] == 2

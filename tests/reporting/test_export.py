import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from genie.cli import app
from genie.core.motion import is_moving
from genie.core.params import load_params
from genie.core.scales import write_scale
from genie.data.caches import read_latent_actions
from genie.models.checkpoint import fingerprint
from genie.pipeline.outputs import write_fingerprints
from genie.reporting.export import training_command
from genie.world import WorldModel
from genie.world.maskgit import Sampling
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def genie_export(*words):
    return CliRunner().invoke(app, ["export", *map(str, words)])


def test_a_world_is_exported_with_prompts_of_its_levels(pipeline, tiny_world, coinrun):
    ran = genie_export()
    assert ran.exit_code == 0, ran.output
    world, store = WorldModel.from_pretrained("world"), coinrun["test"]
    assert f"{len(world.prompts)} prompts, a card without metrics" in ran.stdout
    assert "data/metrics/collect.json: no such file" in ran.stdout
    assert world.tokenizer.fingerprint == tiny_world.dynamics.config.tokenizer_fingerprint
    assert world.sampling == Sampling(**load_params().sampling.model_dump())

    frames_NHWC, actions_N = store.read(0, len(store)), read_latent_actions("data/actions/test.h5")
    levels = [prompt.level for prompt in world.prompts]
    assert 0 < len(levels) == len(set(levels)) <= 12
    for prompt in world.prompts:
        at = np.flatnonzero((frames_NHWC == prompt.frames_THWC[0]).all((1, 2, 3)))
        starts = [start for start in at if np.array_equal(frames_NHWC[start : start + 2], prompt.frames_THWC)]
        episodes = np.searchsorted(store.episode_starts, starts, side="right") - 1
        assert prompt.level in store.level_seeds[episodes]
        assert any(np.array_equal(actions_N[start : start + 1], prompt.actions) for start in starts)
    first = world.prompts[0].frames_THWC
    assert is_moving(first[0], first[1])


def test_exported_again_it_is_the_same_to_the_byte(pipeline):
    genie_export()
    before = {file.name: file.read_bytes() for file in Path("world").iterdir()}
    assert genie_export().exit_code == 0
    assert {file.name: file.read_bytes() for file in Path("world").iterdir()} == before


def test_the_card_tells_metrics_and_command(pipeline, tiny_world):
    for model in (tiny_world.tokenizer, tiny_world.dynamics, tiny_world.steering):
        model.fingerprint = fingerprint(model)
    Path("data/metrics").mkdir()
    # From git: a pipeline run may be changing the files.
    for name in ("collect", "tokenizer", "lam", "motion", "steering", "dynamics", "evaluate"):
        git = ["git", "show", f":data/metrics/{name}.json"]
        metrics = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        Path(f"data/metrics/{name}.json").write_text(metrics)
    ran = genie_export("--out", "told")
    assert ran.stdout.endswith(
        "data/metrics/fingerprints.json: missing or damaged; the pipeline writes it: dvc repro evaluate)\n"
    )
    write_fingerprints(tiny_world.tokenizer, tiny_world.steering)
    ran = genie_export("--out", "told")
    assert ran.exit_code == 1, "figures of other models are refused"
    assert f"they are of the dynamics None, and this is the dynamics {tiny_world.dynamics.fingerprint}" in ran.stderr
    write_fingerprints(tiny_world.tokenizer, tiny_world.dynamics, tiny_world.steering)
    ran = genie_export("--out", "told")
    assert ran.stdout.endswith("a card with metrics\n")
    card, psnr = Path("told/README.md").read_text(), json.loads(Path("data/metrics/evaluate.json").read_text())["psnr"]
    assert f"| evaluate `psnr` | {psnr:.2f} |" in card
    assert "Trained on frames of Procgen's coinrun by `make repro`." in card
    assert "±" not in card
    genie_export("--out", "told", "--made", "Grown on a tree.")
    assert "Grown on a tree.\n" in Path("told/README.md").read_text()


def test_the_card_tells_what_half_precision_costs(pipeline):
    genie_export()
    full, half = (
        WorldModel.load("data/models", Sampling(**load_params().sampling.model_dump())),
        WorldModel.from_pretrained("world"),
    )
    full.sampling = half.sampling = replace(full.sampling, temperature=0.0)
    shares = []
    for prompt in half.prompts:
        for world in (full, half):
            world.reset(prompt.frames_THWC, actions=prompt.actions)
        pixels = np.abs(full.imagine().astype(int) - half.imagine())
        shares.append((pixels > 8).any(-1).mean())
    told = re.search(r"visibly changes ([\d.]+)% of the pixels", Path("world/README.md").read_text())
    # Not to the last pixel: some builds of torch round differently from one tensor's address to another's.
    assert float(told[1]) == pytest.approx(100 * np.mean(shares), rel=0.01)


def test_the_command_names_the_scale(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "scales", tmp_path / "scales")
    monkeypatch.chdir(tmp_path)
    assert training_command(load_params()) == "make repro"
    write_scale("gpu")
    assert training_command(load_params()) == "genie scale gpu && make repro"


def test_what_lies_there_is_overwritten_if_it_is_a_world_and_else_not(pipeline):
    Path("mine").mkdir()
    Path("mine/README.md").write_text("mine")
    for out in ("mine", "."):
        ran = genie_export("--out", out)
        assert ran.exit_code == 1
        assert ran.stderr == f"genie export: --out {out}: holds something else than a world; name a folder of its own\n"
    assert Path("mine/README.md").read_text() == "mine"
    assert not Path("README.md").exists()


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("data/models/dynamics", "data/models/dynamics: no checkpoint here"),
        ("data/frames/test", "data/frames/test/00000.h5: no such file"),
        ("data/actions/test.h5", "data/actions/test.h5"),
    ],
)
def test_a_fault_is_one_line_and_nothing_is_written(pipeline, missing, complaint):
    path = Path(missing)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    ran = genie_export()
    assert ran.exit_code == 1
    assert ran.stderr.startswith(f"genie export: {complaint}")
    assert ran.stderr.count("\n") == 1
    assert not Path("world").exists()

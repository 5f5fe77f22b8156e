import json
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from genie.core.params import ParamsError
from genie.core.protocols import NullTracker
from genie.distributed import devices
from genie.distributed.faults import faults_in_one_line
from genie.models.probe import ActionProbe
from genie.pipeline import stage
from genie.pipeline.outputs import write_curve, write_metrics
from genie.pipeline.short_lives import warn_of_short_lives
from genie.pipeline.stage import run_stage
from genie.pipeline.untrained import leave_untrained


@pytest.fixture
def project(tmp_path, monkeypatch, tiny_params):
    """A working directory whose params load and whose runs are not tracked."""

    @contextmanager
    def open_nothing(name, params):
        yield NullTracker()

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "load_params", lambda: tiny_params)
    monkeypatch.setattr(stage, "open_tracker", open_nothing)
    monkeypatch.delenv("GENIE_TRACEBACK", raising=False)
    return tmp_path


def failing(fault):
    def main(*args):
        raise fault

    return main


def test_a_stage_gets_its_params_and_tracker(project, tiny_params):
    seen = []
    run_stage("collect", lambda params, tracker: seen.append((params, type(tracker))))
    assert seen == [(tiny_params, NullTracker)]


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        (ParamsError("params.yaml: lam.seed: missing key"), 1, "collect: params.yaml: lam.seed: missing key"),
        (ValueError("two\n  lines"), 1, "collect: two lines"),
        (ValueError(), 1, "collect: ValueError"),
        (FileNotFoundError(2, "No such file", "a.h5"), 1, "collect: [Errno 2] No such file: 'a.h5'"),
        (FloatingPointError("the loss is nan"), 1, "collect: the loss is nan"),
        (KeyboardInterrupt(), 130, "collect: interrupted; run the same command again to continue"),
    ],
)
def test_a_fault_is_one_line_and_an_exit_code(project, capsys, fault, code, line):
    with pytest.raises(SystemExit) as exit_:
        run_stage("collect", failing(fault), on_device=False)
    assert exit_.value.code == code
    assert capsys.readouterr().err == f"collect: 1 threads\n{line}\n"


def test_a_full_disk_says_what_to_do(project, capsys):
    with pytest.raises(SystemExit):
        run_stage("collect", failing(OSError(28, "No space left on device", "frames.h5")))
    assert "disk is full" in (line := capsys.readouterr().err)
    assert "frames.h5" in line
    assert "free some space" in line


@pytest.mark.parametrize("fault", [KeyError("a"), TypeError("a"), AssertionError("a"), RuntimeError("a")])
def test_a_programming_error_keeps_its_traceback(project, fault):
    with pytest.raises(type(fault)):
        run_stage("collect", failing(fault))


def test_a_traceback_can_be_asked_for(project, monkeypatch):
    monkeypatch.setenv("GENIE_TRACEBACK", "1")
    with pytest.raises(ValueError, match="a"), faults_in_one_line("collect"):
        raise ValueError("a")


def test_a_stage_without_params_ends_in_one_line(tmp_path):
    program = "from genie.pipeline.stage import run_stage; run_stage('collect', print)"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1
    assert "params.yaml: cannot be read" in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_sorted_rounded_and_plain(project):
    metrics = {
        "psnr": 31.23456789,
        "codes": np.int64(1000),
        "mse": torch.tensor(1.23456789e-5),
        "frames": 1234567,
    }
    write_metrics("tokenizer", metrics)
    text = (project / "data/metrics/tokenizer.json").read_text()
    assert json.loads(text) == {"codes": 1000, "frames": 1234567, "mse": 1.23457e-5, "psnr": 31.2346}
    assert list(json.loads(text)) == sorted(metrics)
    assert [path.name for path in (project / "data/metrics").iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf"), torch.tensor(float("nan"))])
def test_metrics_must_be_finite(project, value):
    write_metrics("tokenizer", {"psnr": 30.0})
    with pytest.raises(ValueError, match="metric psnr is"):
        write_metrics("tokenizer", {"mse": 0.1, "psnr": value})
    assert json.loads((project / "data/metrics/tokenizer.json").read_text()) == {"psnr": 30.0}


def test_a_curve_keeps_columns_that_only_some_rows_have(project):
    write_curve("lam", [{"step": 1, "train_loss": 0.5}, {"step": 2, "train_loss": 0.25, "val_psnr": 20.0}])
    lines = (project / "data/curves/lam.csv").read_text().splitlines()
    assert lines == ["step,train_loss,val_psnr", "1,0.5,", "2,0.25,20.0"]


def test_an_untrained_stage_has_a_curve_without_rows(project, capsys):
    leave_untrained("probe", ActionProbe, without="no ceiling")
    assert (project / "data/curves/probe.csv").read_text() == "step,train_loss\n"
    assert json.loads((project / "data/metrics/probe.json").read_text()) == {}
    assert "nothing is trained; there will be no ceiling" in capsys.readouterr().err


def test_a_stage_says_what_it_computes_on(project, capsys, monkeypatch, tiny_params):
    run_stage("tokenize", lambda params, tracker: None)
    assert capsys.readouterr().err == "tokenize: cpu, fp32, 1 threads\n"
    runtime = tiny_params.runtime.model_copy(update={"device": "auto"})
    monkeypatch.setattr(stage, "load_params", lambda: tiny_params.model_copy(update={"runtime": runtime}))
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", project)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", failing(RuntimeError("The driver is too old (version 1). Update it.")))
    for build, variable, cause in (
        (None, None, "this torch is a CPU build"),
        ("13.0", "", "CUDA_VISIBLE_DEVICES hides it"),
        ("13.0", None, "The driver is too old (version 1)"),
    ):
        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if variable is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
        run_stage("tokenize", lambda params, tracker: None)
        told = f"tokenize: cpu, fp32, 1 threads (there is an NVIDIA card, which torch cannot use: {cause})\n"
        assert capsys.readouterr().err == told


def test_short_episodes_are_told_before_training(project, tiny_params, coinrun, capsys, monkeypatch):
    """The warning about what `evaluate` cannot measure comes before hours of training, not after."""
    link = project / "data/frames/test"
    link.parent.mkdir(parents=True)
    link.symlink_to(coinrun["test"].path.resolve())
    warn_of_short_lives(tiny_params)
    assert capsys.readouterr().err == ""
    longest = max(part.stop - part.start for part in coinrun["test"].episode_slices())
    context = tiny_params.dynamics.context_frames
    settings = tiny_params.evaluate.model_copy(update={"horizon": longest - context, "drift_horizon": 900})
    warn_of_short_lives(tiny_params.model_copy(update={"evaluate": settings}))
    assert capsys.readouterr().err == (
        f"the longest episode of data/frames/test has {longest} frames, but long dreams need {context + 900}: evaluate "
        "will measure shorter ones or none; lower evaluate.drift_horizon or collect.action_repeat\n"
    )

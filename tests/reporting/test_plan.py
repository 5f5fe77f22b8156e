import json
from dataclasses import asdict

import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from genie.cli import app
from genie.core.scales import load_scale
from genie.data.caches import read_latent_actions, read_token_shard, write_latent_actions, write_tokens
from genie.data.shards import Shard
from genie.reporting.plan import PlanError, make_plan, measured_bytes_per_frame, plan_tables
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

MACHINE = {"peak": 2.0, "utilisation": 0.25}


@pytest.fixture(scope="module")
def plans(tiny_params):
    """Plans of the tiny scale on 1, 2 and 4 devices, at 1000 bytes per frame."""
    return {devices: make_plan(tiny_params, 1000.0, devices=devices, **MACHINE) for devices in (1, 2, 4)}


@pytest.fixture
def project(tiny_tree, tmp_path, monkeypatch):
    """A folder with tiny params, a scale that changes a width, and the metrics of `collect`."""
    YAML().dump(tiny_tree, tmp_path / "params.yaml")
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales/wide.yaml").write_text("tokenizer: {width: 32}\n")
    (tmp_path / "data/metrics").mkdir(parents=True)
    (tmp_path / "data/metrics/collect.json").write_text('{"bytes_per_frame": 1000.0}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def genie_plan(*words):
    return CliRunner().invoke(app, ["plan", *words])


def test_hours_are_operations_over_speed(plans):
    for devices, plan in plans.items():
        for model in plan.models:
            costs = model.costs
            seconds = model.steps * (costs.model_flops / devices + costs.optimizer_flops) / (2e12 * 0.25)
            assert model.hours == pytest.approx(seconds / 3600)
            assert model.flops == model.steps * (costs.model_flops + costs.optimizer_flops)
        assert plan.hours == pytest.approx(sum(model.hours for model in plan.models))


def test_devices_share_activations_and_may_share_the_rest(plans):
    for alone, many in zip(plans[1].models, plans[4].models, strict=True):
        costs = alone.costs
        state = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes
        assert alone.bytes_alone == alone.bytes_ddp == alone.bytes_fsdp == state + costs.activation_bytes
        assert many.bytes_alone == alone.bytes_alone
        assert many.bytes_ddp == pytest.approx(state + costs.activation_bytes / 4, abs=1)
        assert many.bytes_fsdp == pytest.approx((state + costs.activation_bytes) / 4, abs=2)


def test_data_is_as_large_as_what_is_written(plans, tiny_params, tmp_path):
    plan, frames = plans[1], sum(count for _, count in tiny_params.collect.frames)
    assert (plan.frames, plan.raw_bytes, plan.stored_bytes) == (frames, frames * 64 * 64 * 3, frames * 1000)
    tokens, actions = np.zeros((frames, 256), np.uint16), np.zeros(frames, np.uint8)
    shard = Shard("train", 0, 1, frames)
    write_tokens(tmp_path / "00000.h5", [tokens], shard, fingerprint="", num_codes=2, grid=(16, 16))
    write_latent_actions(tmp_path / "actions.h5", [actions], frames, fingerprint="", num_actions=2)
    assert plan.token_bytes == read_token_shard(tmp_path / "00000.h5").nbytes
    assert plan.action_bytes == read_latent_actions(tmp_path / "actions.h5").nbytes


def test_auto_is_taken_for_bf16(plans, tiny_params):
    runtime = tiny_params.runtime.model_copy(update={"precision": "auto"})
    auto = make_plan(tiny_params.model_copy(update={"runtime": runtime}), 1.0, devices=1, **MACHINE)
    assert (plans[1].precision, auto.precision) == ("fp32", "bf16")
    assert auto.models[0].costs.activation_bytes < plans[1].models[0].costs.activation_bytes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"devices": 0}, "--devices 0"),
        ({"devices": 3}, "--devices 3: tokenizer.batch_size 4 does not divide"),
        ({"peak": 0.0}, "--peak 0 "),
        ({"peak": float("inf")}, "--peak inf "),
        ({"peak": float("nan")}, "--peak nan "),
        ({"utilisation": 1.5}, "--utilisation 1.5 "),
    ],
)
def test_what_cannot_be_planned_is_named(tiny_params, changes, complaint):
    with pytest.raises(PlanError, match=complaint):
        make_plan(tiny_params, 1.0, **{"devices": 1, **MACHINE, **changes})


def test_tables_are_markdown(plans):
    first, *tables = plan_tables(plans[2]).split("\n\n")
    assert first == "Training on 2 devices of 2 TFLOP/s, of which 25% are used, in fp32:"
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    models = [line.split()[1] for line in tables[0].splitlines()[2:]]
    assert models == ["tokenizer", "probe", "lam", "motion", "steering", "dynamics", "all"]


def test_the_command_prints_the_tables_or_all_of_it(project, plans):
    options = ["--devices", "2", "--peak", "2", "--utilisation", "0.25"]
    assert genie_plan(*options).stdout == plan_tables(plans[2])
    assert json.loads(genie_plan(*options, "--json").stdout) == asdict(plans[2])


def test_a_scale_and_a_precision_can_be_asked_for(project, plans):
    wide = json.loads(genie_plan("--scale", "wide", "--precision", "bf16", "--json").stdout)
    assert wide["precision"] == "bf16"
    assert wide["models"][0]["costs"]["parameters"] > plans[1].models[0].costs.parameters


@pytest.mark.parametrize(
    "words", [["--scale", "galaxy"], ["--devices", "0"], ["--devices", "3"], ["--precision", "fp8"], ["--peak", "-1"]]
)
def test_a_fault_is_one_line(project, words):
    ran = genie_plan(*words)
    assert ran.exit_code == 1
    assert ran.stderr.startswith("genie plan: ")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_frames_that_nobody_measured_are_a_fault(project, text):
    path = project / "data/metrics/collect.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(PlanError, match=r"collect.json: .*make repro"):
        measured_bytes_per_frame()


def test_a_cluster_is_planned_on_any_machine(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = make_plan(load_scale("paper")[1], 1000.0, devices=12, peak=312, utilisation=0.3)
    assert sum(model.costs.parameters for model in plan.models) > 2e8
    assert sum(model.bytes_alone for model in plan.models) > 1e11, "more than any machine that tests this has"
    assert plan.frames > 10**7

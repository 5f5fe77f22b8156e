"""Settings that cannot fit in memory are refused, and those that can are not."""

import os
import re
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from ruamel.yaml import YAML

from genie.core.params import load_params
from genie.core.scales import load_scale
from genie.pipeline.stage import run_stage
from genie.training import memory_budget as budget
from genie.training.costs import step_costs
from genie.training.memory_budget import MemoryBudgetError, check_memory
from tests.conftest import ROOT

MODELS = ("tokenizer", "probe", "lam", "motion", "dynamics")


@pytest.fixture
def cpu_params(tiny_params):
    return lambda params: params.model_copy(update={"runtime": tiny_params.runtime})


@pytest.mark.parametrize("model", MODELS)
def test_it_needs_what_is_counted_and_no_byte_less(tiny_params, monkeypatch, model):
    costs = step_costs(model, tiny_params)
    needed = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes + costs.activation_bytes
    needed += costs.score_bytes + budget.PROCESS_BYTES
    frame_bytes = {"motion": 0, "dynamics": 2 * 256 + 1}.get(model, 64 * 64 * 3)
    needed += tiny_params.collect.frames.train * frame_bytes
    monkeypatch.setattr(budget, "free_bytes", lambda device: needed)
    check_memory(model, tiny_params)
    monkeypatch.setattr(budget, "free_bytes", lambda device: needed - 1)
    with pytest.raises(MemoryBudgetError):
        check_memory(model, tiny_params)


def test_a_gpu_holds_its_share_alone_of_what_is_sharded(tiny_params, monkeypatch):
    costs = step_costs("dynamics", tiny_params)
    state = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes
    monkeypatch.setattr(budget, "resolve_device", lambda runtime: torch.device("cuda"))
    monkeypatch.setattr(budget, "fitting_place", lambda num_bytes, device: "memory")
    monkeypatch.setattr(budget, "free_bytes", lambda device: -(-state // 4) + costs.activation_bytes // 4)
    monkeypatch.setenv("WORLD_SIZE", "4")
    for strategy, does_fit in (("fsdp", nullcontext()), ("ddp", pytest.raises(MemoryBudgetError))):
        runtime = tiny_params.runtime.model_copy(update={"strategy": strategy})
        with does_fit:
            check_memory("dynamics", tiny_params.model_copy(update={"runtime": runtime}))


def test_data_on_the_device_take_its_memory_and_data_in_files_take_none(tiny_params, monkeypatch):
    costs = step_costs("tokenizer", tiny_params)
    needed = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes + costs.activation_bytes
    data = tiny_params.collect.frames.train * 64 * 64 * 3
    monkeypatch.setattr(budget, "resolve_device", lambda runtime: torch.device("cuda"))
    for place, held in (("device", data), ("memory", 0), ("files", 0)):
        params = tiny_params.model_copy(
            update={"runtime": tiny_params.runtime.model_copy(update={"training_data": place})}
        )
        monkeypatch.setattr(budget, "free_bytes", lambda device, free=needed + held: free)
        check_memory("tokenizer", params)
        monkeypatch.setattr(budget, "free_bytes", lambda device, free=needed + held - 1: free)
        with pytest.raises(MemoryBudgetError):
            check_memory("tokenizer", params)


def test_processes_of_a_machine_share_its_memory(tiny_params, monkeypatch):
    """Processes as torchrun starts them: each has its own weights and frames, and its share of the batch."""
    costs = step_costs("tokenizer", tiny_params)
    own = costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes + budget.PROCESS_BYTES
    own += tiny_params.collect.frames.train * 64 * 64 * 3
    needed = 2 * own + costs.activation_bytes
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr(budget, "free_bytes", lambda device: needed)
    check_memory("tokenizer", tiny_params)
    monkeypatch.setattr(budget, "free_bytes", lambda device: needed - 1)
    with pytest.raises(MemoryBudgetError):
        check_memory("tokenizer", tiny_params)


@pytest.mark.parametrize("model", MODELS)
def test_the_default_fits_into_eight_gibibytes(cpu_params, monkeypatch, model):
    monkeypatch.setattr(budget, "free_bytes", lambda device: 8 << 30)
    check_memory(model, cpu_params(load_params()))


def test_the_papers_dynamics_does_not_fit_into_sixteen_gigabytes(cpu_params, monkeypatch):
    monkeypatch.setattr(budget, "free_bytes", lambda device: 16 * 10**9)
    with pytest.raises(MemoryBudgetError) as refused:
        check_memory("dynamics", cpu_params(load_scale("paper")[1]))
    assert re.fullmatch(
        r"training needs about \d+ GB of memory \(\d+ GB of them for a batch of 36\), but cpu has 16 GB free: "
        r"lower dynamics.batch_size or dynamics.width, keep the data elsewhere \(runtime.training_data: "
        r"files\), or free some",
        str(refused.value),
    )


def test_only_the_dynamics_attends(tiny_params):
    scores = {model: step_costs(model, tiny_params).score_bytes for model in MODELS}
    assert scores.pop("dynamics") > 0
    assert set(scores.values()) == {0}


def test_a_stage_is_refused_before_it_is_tracked(pipeline, monkeypatch, capsys):
    monkeypatch.setattr(budget, "free_bytes", lambda device: 0)
    with pytest.raises(SystemExit) as ended:
        run_stage("train_lam", lambda params, tracker: pytest.fail("it ran"), trains="lam")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("train_lam: training needs about ")
    assert not (pipeline / "mlflow.db").exists()


COMPUTE = """
import torch
from genie.training.memory_budget import check_memory
from genie.core.params import load_params
from genie.distributed.accelerator import make_accelerator
params = load_params()
for model in ("tokenizer", "probe", "lam", "motion", "dynamics"):
    check_memory(model, params)
make_accelerator(params.runtime.model_copy(update={"device": "cpu", "threads": 2}))
small = torch.full((8_000_000,), 1e-20)
print(torch.get_num_threads(), int((small * small).count_nonzero()))
"""


@pytest.mark.slow
def test_it_makes_no_thread_that_would_compute_with_denormal_numbers(tiny_tree, tmp_path):
    """Threads inherit the treatment of denormal numbers when they are created: `make_accelerator` must come first."""
    YAML().dump(tiny_tree, tmp_path / "params.yaml")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", COMPUTE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["2", "0"]

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

import genie.training.loop
from genie.core.protocols import NullTracker
from genie.distributed.accelerator import make_accelerator
from genie.training.loop import train
from genie.training.resume import ResumeStore
from genie.training.step import lr_factor, make_optimizers


class Interrupted(Exception):
    """Stand-in for any error that ends a run early."""


class Recorder(NullTracker):
    """Records what the loop logs; raises at a step."""

    def __init__(self, run_id="first", stop_at=None):
        self.run_id, self.stop_at = run_id, stop_at
        self.rows, self.resumed = {}, []

    def log_metrics(self, metrics, step):
        if step == self.stop_at:
            raise Interrupted
        self.rows[step] = metrics

    def resume(self, run_id):
        self.resumed.append(run_id)


def validate(model, step):
    """Draws a random number, as a careless validation might: it must not affect a resumed run."""
    assert not model.training
    return {"draw": torch.rand(()).item(), "step": float(step)}


def run(job, accelerator, tracker=None, inputs=None):
    name, params, build, dataset = job
    model, resume = build(), ResumeStore(name, params, accelerator, inputs or {})
    curve = train(model, dataset, params, accelerator, tracker or Recorder(), resume, validate)
    resume.clear()  # as stages do after writing their outputs
    return model, curve


def assert_same_weights(model, other):
    state, other_state = model.state_dict(), other.state_dict()
    assert state.keys() == other_state.keys()
    different = [name for name in state if not torch.equal(state[name], other_state[name])]
    assert not different


def test_the_same_seed_gives_the_same_bits(job, accelerator):
    (model, curve), (again, curve_again) = run(job, accelerator), run(job, accelerator)
    assert_same_weights(model, again)
    assert curve == curve_again
    assert not model.training


def test_a_resumed_run_is_an_uninterrupted_one(job, accelerator, monkeypatch):
    model, curve = run(job, accelerator)
    monkeypatch.setattr(genie.training.loop, "SAVING_SHARE", float("inf"))
    with pytest.raises(Interrupted):
        run(job, accelerator, Recorder(stop_at=8))
    torch.manual_seed(99)
    later = Recorder("second")
    resumed, resumed_curve = run(job, accelerator, later)
    assert min(later.rows) == 8
    assert later.resumed == ["first"]
    assert resumed_curve == curve
    assert_same_weights(model, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["probe"], indirect=True)  # the quickest to compile
def test_a_compiled_training_follows_one_that_is_not(job, accelerator, tiny_params):
    model, curve = run(job, accelerator)
    AcceleratorState._reset_state(reset_partial_state=True)
    compiling = make_accelerator(tiny_params.runtime.model_copy(update={"compile": True}), training=True)
    if compiling.state.dynamo_plugin.backend.value == "NO":
        pytest.skip("no compiler works here")
    compiled, compiled_curve = run(job, compiling)
    assert compiled.state_dict().keys() == model.state_dict().keys()
    for name in ("train_loss", "train_grad_norm"):
        assert [row[name] for row in compiled_curve] == pytest.approx([row[name] for row in curve], rel=1e-3)


@pytest.mark.parametrize("job", ["tokenizer"], indirect=True)
def test_a_finished_training_is_found_until_its_out_is_written(job, accelerator):
    """A stage that fails after its training, at the gate or on a full disk, does not train again."""
    name, params, build, dataset = job
    resume, later = ResumeStore(name, params, accelerator, {}), Recorder()
    model, again = build(), build()
    curve = train(model, dataset, params, accelerator, Recorder(), resume, validate)
    assert train(again, dataset, params, accelerator, later, resume, validate) == curve
    assert later.rows == {}
    assert_same_weights(model, again)


@pytest.mark.parametrize("job", ["tokenizer"], indirect=True)
def test_a_run_of_other_inputs_starts_afresh(job, accelerator, monkeypatch):
    monkeypatch.setattr(genie.training.loop, "SAVING_SHARE", float("inf"))
    with pytest.raises(Interrupted):
        run(job, accelerator, Recorder(stop_at=8), inputs={"frames": "old"})
    later = Recorder()
    run(job, accelerator, later, inputs={"frames": "new"})
    assert min(later.rows) == 1
    assert later.resumed == []


@pytest.mark.parametrize("job", ["tokenizer"], indirect=True)
def test_the_curve_tells_of_every_step(job, accelerator):
    tracker = Recorder()
    _, curve = run(job, accelerator, tracker)
    params = job[1]
    assert [row["step"] for row in curve] == list(range(1, params.steps + 1))
    assert {"train_loss", "train_grad_norm", "lr"} <= curve[0].keys()
    assert [row["step"] for row in curve if "val_draw" in row] == [10, 12]
    lrs = [params.lr * lr_factor(step, params) for step in range(1, params.steps + 1)]
    assert [row["lr"] for row in curve] == pytest.approx(lrs)
    assert all("samples_per_second" not in row for row in curve), "no times in what DVC caches"
    assert all(row["samples_per_second"] > 0 for row in tracker.rows.values())


def test_lr_warms_up_and_falls_to_zero(tiny_params):
    params = tiny_params.tokenizer.model_copy(update={"steps": 100, "warmup_steps": 10})
    factors = [lr_factor(step, params) for step in range(101)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)
    assert lr_factor(0, params.model_copy(update={"warmup_steps": 0})) == 1


def test_weight_decay_is_on_matrices_only(tiny_params):
    params = tiny_params.tokenizer.model_copy(update={"weight_decay": 0.3})
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.LayerNorm(3), nn.Linear(3, 4))
    optimizers = make_optimizers(model, params).values()
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decay[p] for name, p in model.named_parameters()} == {
        "0.weight": 0.3, "0.bias": 0, "1.weight": 0, "1.bias": 0, "2.weight": 0.3, "2.bias": 0,
    }  # fmt: skip


class Explosive(nn.Module):
    """A model whose loss is not finite from its fourth batch on."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.num_batches = 0

    def forward(self, batch):
        self.num_batches += 1
        return self.layer(torch.ones(1)).sum() * (float("nan") if self.num_batches > 3 else 1.0), {}


@pytest.mark.parametrize("job", ["tokenizer"], indirect=True)
def test_a_loss_that_is_not_finite_ends_the_run(job, accelerator):
    name, params, _, dataset = job
    resume = ResumeStore(name, params, accelerator, {})
    with pytest.raises(FloatingPointError, match=r"training loss is nan near step 4: lower lr") as fault:
        train(Explosive(), dataset, params, accelerator, Recorder(), resume, validate)
    assert "\n" not in str(fault.value)

import pytest
import torch

from genie.bench.timed_step import PHASES, Step
from genie.bench.training_data import model_and_data
from genie.core.protocols import NullTracker
from genie.distributed.accelerator import make_accelerator
from genie.training.costs import training_params
from genie.training.loop import train
from genie.training.resume import ResumeStore

STEPS = 3


@pytest.mark.parametrize("name", ["tokenizer", "lam", "dynamics"])
def test_its_steps_are_those_of_the_training_loop(name, tiny_params, bench_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = getattr(tiny_params, name)
    if name == "lam":
        surprise = section.surprise.model_copy(update={"steps": STEPS, "expectation_steps": STEPS - 1})
        section = section.model_copy(update={"surprise": surprise})
    else:
        section = section.model_copy(update={"steps": STEPS})
    params = tiny_params.model_copy(update={name: section})
    settings = training_params(name, params)
    accelerator = make_accelerator(params.runtime)
    model, dataset = model_and_data(name, params, bench_data, num_batches=STEPS)
    resume = ResumeStore("bench", settings, accelerator, {})
    train(model, dataset, settings, accelerator, NullTracker(), resume, lambda model, step: {})

    step = Step(name, params, bench_data)
    torch.manual_seed(settings.seed)
    for _ in range(STEPS):
        step()
    trained, found = model.state_dict(), step.model.state_dict()
    assert [key for key in trained if not torch.equal(trained[key], found[key])] == []
    assert {phase: len(seconds) for phase, seconds in step.seconds.items()} == dict.fromkeys(PHASES, STEPS)

"""A training step never makes the host wait for a GPU: it asks for no value that decides what comes next.

Checked on the CPU, by the operators that a step runs: those that return a Python number, or a shape that depends
on values, wait for a GPU to compute them.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genie.models.tokenizer import build_tokenizer
from genie.training.step import TrainingStep

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense,  # item(), float(tensor), `if tensor:`
    aten.nonzero,
    aten.masked_select,
    aten.bincount,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.equal,
    aten.repeat_interleave,  # with a number of repeats for each row
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class WaitedError(Exception):
    """An operator makes the host wait for a GPU."""


class NeverWaiting(TorchDispatchMode):
    """Context in which an operator that makes the host wait for a GPU raises WaitedError."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        operator = function.overloadpacket
        by_mask = operator in INDEXING and any(index is not None and index.dtype == torch.bool for index in args[1])
        if by_mask or (operator in WAITING and function is not aten.repeat_interleave.self_int):
            raise WaitedError(f"{function}")
        return function(*args, **(kwargs or {}))


def take_steps(build, params, dataset, accelerator):
    step = TrainingStep(build(), params, accelerator)
    with NeverWaiting():
        return [step(dataset[index])["loss"] for index in range(2)]


def test_a_step_does_not_wait(job, accelerator):
    _, params, build, dataset = job
    assert torch.stack(take_steps(build, params, dataset, accelerator)).isfinite().all()


@pytest.mark.parametrize("job", ["tokenizer"], indirect=True)
def test_nor_does_one_of_the_other_quantizer(job, accelerator):
    _, params, _, dataset = job
    params = params.model_copy(update={"quantizer": "fsq"})
    take_steps(lambda: build_tokenizer(params, 64), params, dataset, accelerator)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x[0].item(),
        lambda x: float(x[0]),
        lambda x: 1 if x.any() else 0,
        lambda x: x[x > 1],
        lambda x: x.index_put_((x > 1,), torch.zeros(())),
        lambda x: x.masked_fill_(x > 1, 0.0).unique(),
        lambda x: x.masked_select(x > 1),
        lambda x: x.nonzero(),
        lambda x: x.long().bincount(minlength=9),
        lambda x: x.repeat_interleave(x.long()),
    ],
)
def test_waiting_is_noticed(wait):
    with pytest.raises(WaitedError), NeverWaiting():
        wait(torch.arange(4.0))

import os

import pytest
import torch
from accelerate.state import AcceleratorState

from genie.params import RuntimeParams
from genie.runtime import (
    RuntimeUnavailableError,
    make_accelerator,
    num_threads,
    resolve_device,
    resolve_precision,
)


def runtime(device="auto", precision="auto", threads=0):
    return RuntimeParams(device=device, precision=precision, threads=threads)


@pytest.fixture
def machine(monkeypatch):
    """Pretends that there is, or is not, this and that."""

    def machine(cuda=False, mps=False, cuda_bf16=False, cpu_bf16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda_bf16)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

    return machine


@pytest.fixture
def fresh_state():
    """An accelerator's state and the number of threads are the process's."""
    before = torch.get_num_threads()
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("there", "device"),
    [({"cuda": True, "mps": True}, "cuda"), ({"mps": True}, "mps"), ({}, "cpu")],
)
def test_auto_takes_the_best_device_there_is(there, device, machine):
    machine(**there)
    assert resolve_device(runtime()).type == device
    assert resolve_device(runtime(device="cpu")).type == "cpu"


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_one_clear_error(device, machine):
    machine()
    with pytest.raises(RuntimeUnavailableError, match=rf"^runtime\.device: no {device} device here; use auto or cpu$"):
        make_accelerator(runtime(device=device))


@pytest.mark.parametrize(
    ("there", "device", "precision"),
    [
        ({"cuda_bf16": True}, "cuda", "bf16"),
        ({"cpu_bf16": True}, "cuda", "fp32"),
        ({"cpu_bf16": True}, "cpu", "bf16"),
        ({"cuda_bf16": True}, "cpu", "fp32"),
        ({"cuda_bf16": True, "cpu_bf16": True}, "mps", "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_hardware_does(there, device, precision, machine):
    machine(**there)
    assert resolve_precision(runtime(), torch.device(device)) == precision
    for asked in ("fp32", "bf16"):
        assert resolve_precision(runtime(precision=asked), torch.device(device)) == asked


def test_threads_are_those_asked_for_or_one_a_core():
    assert num_threads(runtime(threads=3)) == 3
    if hasattr(os, "sched_getaffinity"):
        assert num_threads(runtime()) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_an_accelerator_computes_as_told(precision, dtype, fresh_state):
    accelerator = make_accelerator(runtime(device="cpu", precision=precision, threads=1))
    assert accelerator.device.type == "cpu"
    assert torch.get_num_threads() == 1
    with accelerator.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype

import os
import platform
import socket
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState

from genie.core.params import RuntimeParams
from genie.distributed.accelerator import make_accelerator
from genie.distributed.devices import RuntimeUnavailableError, resolve_device, resolve_precision
from genie.distributed.processes import num_threads
from tests.conftest import ROOT


def runtime(device="auto", precision="auto", compile=False, threads=0, processes=1):
    return RuntimeParams(
        device=device,
        precision=precision,
        compile=compile,
        threads=threads,
        processes=processes,
        strategy="ddp",
        training_data="auto",
    )


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that fakes which devices and bf16 support exist."""

    def machine(cuda=False, mps=False, cuda_bf16=False, cpu_bf16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda_bf16)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)

    return machine


@pytest.fixture
def fresh_state():
    """Resets the accelerator's state and the number of threads, which are global to the process."""
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


# Prints how many of ten tensors needed new memory pages.
FREED = """
import resource, sys
import torch
from genie.distributed.devices import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
for last in (2, 10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(last):
        torch.ones(2**26, dtype=torch.uint8)  # freed at once
made = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(made * resource.getpagesize() / 2**26)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it asks glibc")
def test_freed_memory_is_kept_for_the_next_tensor():
    command = [sys.executable, "-c", FREED, "kept"]
    # Ideally none does, but a busy kernel reclaims some pages; without `keep_freed_memory`, all ten do.
    assert float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout) < 8


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_an_accelerator_computes_as_told(precision, dtype, fresh_state):
    accelerator = make_accelerator(runtime(device="cpu", precision=precision, threads=1))
    assert accelerator.device.type == "cpu"
    assert torch.get_num_threads() == 1
    with accelerator.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_only_a_training_that_asks_for_it_is_compiled(monkeypatch, fresh_state):
    monkeypatch.setattr(torch, "compile", lambda function, options: function)
    cases = [(True, True, "INDUCTOR"), (True, False, "NO"), (False, True, "NO"), ("graphs", True, "INDUCTOR")]
    for asked, training, backend in cases:
        AcceleratorState._reset_state(reset_partial_state=True)
        accelerator = make_accelerator(runtime(device="cpu", precision="fp32", compile=asked), training=training)
        assert accelerator.state.dynamo_plugin.backend.value == backend
        assert (accelerator.state.dynamo_plugin.mode == "reduce-overhead") == (asked == "graphs")


TRAIN = """
import torch
from genie.core.params import RuntimeParams
from genie.distributed.accelerator import make_accelerator
runtime = RuntimeParams(
    device="cpu", precision="fp32", compile=True, threads=1, processes=1, strategy="ddp", training_data="auto"
)
accelerator = make_accelerator(runtime, training=True)
model = accelerator.prepare(torch.nn.Linear(2, 2))
accelerator.backward(model(torch.ones(1, 2)).sum())
print("trained")
"""


@pytest.mark.slow
def test_without_a_compiler_training_goes_on_and_one_line_tells_why():
    environment = os.environ | {"CXX": "/nonexistent/compiler"}
    command = [sys.executable, "-W", "ignore", "-c", TRAIN]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "trained\n"
    [line] = run.stderr.splitlines()
    assert line.startswith("runtime.compile: no compiler works here (")
    assert line.endswith("; training uncompiled")


ALONE = """
from datetime import timedelta
import genie.distributed.accelerator
from genie.core.params import load_params
from genie.distributed.faults import faults_in_one_line
genie.distributed.accelerator.PATIENCE = timedelta(seconds=2)
with faults_in_one_line("train_lam"):
    genie.distributed.accelerator.make_accelerator(load_params().runtime.model_copy(update={"device": "cpu"}))
"""


@pytest.mark.slow
def test_a_process_that_reaches_no_other_says_so_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        peers = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1]), "WORLD_SIZE": "2"}
        rank = {"RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
        run = subprocess.run(
            [sys.executable, "-c", ALONE], env=os.environ | peers | rank, cwd=ROOT, capture_output=True, text=True
        )
    [line] = [line for line in run.stderr.splitlines() if line.startswith("train_lam:")]
    assert line.startswith(f"train_lam: process 1 of 2 cannot reach the others at 127.0.0.1:{peers['MASTER_PORT']} (")
    assert run.returncode == 1
    assert "Traceback" not in run.stderr

import json
import re
import warnings

import numpy as np
import pytest
import torch

from genie.core.params import RuntimeParams
from genie.distributed import devices
from genie.distributed.devices import RuntimeUnavailableError, resolve_device
from genie.distributed.faults import faults_in_one_line

DEBUGGING = """
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
FULL = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 23.69 GiB of which 2.56 GiB is "
    "free. Process 4711 has 3.20 GiB memory in use. Including non-PyTorch memory, this process has 17.49 GiB memory in "
    "use. "
)
FRAGMENTS = (
    "Of the allocated memory 16.90 GiB is allocated by PyTorch, and 313.00 MiB is reserved by PyTorch but unallocated. "
    "If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid "
    "fragmentation.  See documentation for Memory Management  (https://pytorch.org/docs/stable/notes/cuda.html)"
)
DRIVER_TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by downloading "
    "and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx Alternatively, go to: "
    "https://pytorch.org to install a PyTorch version that has been compiled with your version of the CUDA driver."
)
ELSEWHERE = "choose another GPU with CUDA_VISIBLE_DEVICES, or set runtime.device to cpu"


@pytest.fixture
def line_of(capsys, monkeypatch):
    """Returns a function that returns the one line with which a program ends, and checks its exit code."""
    monkeypatch.delenv("GENIE_TRACEBACK", raising=False)

    def line_of(act, program="train_dynamics"):
        with pytest.raises(SystemExit) as exit_, faults_in_one_line(program):
            act()
        assert exit_.value.code == 1
        [line] = capsys.readouterr().err.splitlines()
        return line

    return line_of


def raising(fault):
    def act():
        raise fault

    return act


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (
            torch.OutOfMemoryError(FULL + FRAGMENTS),
            f"out of memory ({FULL.rstrip('. ')}): lower the batch_size of dynamics in params.yaml; or end other "
            f"programs on the GPU, {ELSEWHERE}",
        ),
        (
            torch.AcceleratorError("CUDA error: out of memory" + DEBUGGING),
            "out of memory (CUDA error: out of memory): lower the batch_size of dynamics in params.yaml; or end other "
            f"programs on the GPU, {ELSEWHERE}",
        ),
        (
            torch.AcceleratorError("CUDA error: CUDA-capable device(s) is/are busy or unavailable" + DEBUGGING),
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable: another program may hold the GPU for "
            f"itself; end it (nvidia-smi lists it), {ELSEWHERE}",
        ),
        (
            torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device" + DEBUGGING),
            "CUDA error: no kernel image is available for execution on the device: this torch is not built for this "
            f"GPU; install one that is, {ELSEWHERE}",
        ),
        (
            RuntimeError(DRIVER_TOO_OLD),
            "The NVIDIA driver on your system is too old (found version 11040): update the driver, install a torch "
            "built for an older CUDA, or set runtime.device to cpu",
        ),
    ],
)
def test_what_a_gpu_refuses_is_one_line_with_a_fix(fault, line, line_of):
    assert line_of(raising(fault)) == f"train_dynamics: {line}"


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**60, dtype=torch.uint8), lambda: np.empty(2**60, np.uint8)])
def test_memory_that_a_cpu_lacks_is_one_line_with_a_fix(allocate, line_of):
    assert re.fullmatch(
        r"evaluate: out of memory \((DefaultCPU|Unable).*allocate .*\): end other programs",
        line_of(allocate, "evaluate"),
    )
    line = line_of(allocate, "train_lam")
    assert line.endswith("): lower the batch_size of lam in params.yaml; or end other programs")


def test_a_process_leaves_the_line_for_its_launcher(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit), faults_in_one_line("train_probe"):
        raise torch.OutOfMemoryError(FULL + FRAGMENTS)
    assert json.loads((tmp_path / "error.json").read_text())["message"].startswith("out of memory (CUDA out of memory.")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)"),
        torch.AcceleratorError("CUDA error: device-side assert triggered" + DEBUGGING),
    ],
)
def test_other_errors_keep_their_traceback(fault):
    with pytest.raises(type(fault)), faults_in_one_line("train_dynamics"):
        raise fault


def test_a_traceback_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("GENIE_TRACEBACK", "1")
    with pytest.raises(torch.OutOfMemoryError), faults_in_one_line("train_dynamics"):
        raise torch.OutOfMemoryError(FULL)


def test_a_card_that_cannot_be_used_is_told_without_a_warning(tmp_path, monkeypatch, recwarn):
    def is_available():
        warnings.warn(f"CUDA initialization: {DRIVER_TOO_OLD} (Triggered internally at CUDAFunctions.cpp:108.)")  # noqa: B028
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "init", raising(RuntimeError(DRIVER_TOO_OLD)))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    runtime = RuntimeParams(
        device="auto",
        precision="auto",
        compile=False,
        threads=1,
        processes=1,
        strategy="ddp",
        training_data="auto",
    )
    assert resolve_device(runtime).type == "cpu"
    cause = r"\(there is an NVIDIA card, which torch cannot use: The NVIDIA driver .* \(found version 11040\)\)"
    with pytest.raises(
        RuntimeUnavailableError, match=rf"^runtime\.device: no cuda device here {cause}; use auto or cpu$"
    ):
        resolve_device(runtime.model_copy(update={"device": "cuda"}))
    assert not recwarn.list

"""Benchmark of the machine's peak speed: matrix products and memory copies.

On a GPU, in all of its precisions, and with the copies that bring a batch to it.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from genie.bench.figures import Figure
from genie.bench.peak import peak_memory
from genie.bench.timing import clock_of, take_turns, wait_for
from genie.core.params import Params
from genie.distributed.accelerator import make_accelerator

ROUNDS = 15
COPIED_BYTES = 2**27  # more than CPU caches hold
# Sides of square matrices; at one of them the hardware is close to its peak speed.
SIDES = {"cpu": (512, 1024), "cuda": (4096, 8192), "mps": (2048, 4096)}
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16}
# Precisions of products: that of the matrices, and how float32 is multiplied (`torch.set_float32_matmul_precision`).
PRECISIONS = {"bf16": ("bf16", "highest"), "tf32": ("no", "high"), "fp32": ("no", "highest")}


def measure(params: Params, folder: Path) -> list[Figure]:
    """Measures the device that training uses, in the precision that training uses."""
    accelerator = make_accelerator(params.runtime)
    source, target = torch.zeros(2, COPIED_BYTES, dtype=torch.uint8)
    products = matrix_products(accelerator.device, accelerator.mixed_precision)
    seconds = take_turns({**products, "copy": lambda: target.copy_(source)}, ROUNDS)
    return [
        Figure("machine.matmul_tflops", matmul_flops_per_second(seconds) / 1e12, "TFLOP/s"),
        Figure("machine.copy_gb_per_second", COPIED_BYTES / seconds["copy"] / 1e9, "GB/s"),
        *(ceilings(accelerator.device) if accelerator.device.type == "cuda" else []),
        peak_memory("machine"),
    ]


def ceilings(device: torch.device) -> list[Figure]:
    """Measures a device in all precisions: its matrix products, copies within its memory, and copies from the host's
    memory, pageable and (of CUDA devices) pinned."""
    figures, clock = [], clock_of(device)
    usual = torch.get_float32_matmul_precision()
    for name, (mixed_precision, of_float32) in PRECISIONS.items():
        torch.set_float32_matmul_precision(of_float32)
        seconds = take_turns(matrix_products(device, mixed_precision), ROUNDS, clock)
        figures.append(Figure(f"machine.{name}_tflops", matmul_flops_per_second(seconds) / 1e12, "TFLOP/s"))
    torch.set_float32_matmul_precision(usual)
    host = torch.zeros(COPIED_BYTES, dtype=torch.uint8)
    target, source = torch.zeros(2, COPIED_BYTES, dtype=torch.uint8, device=device)
    sources = {"device": source, "unpinned": host} | ({"pinned": host.pin_memory()} if device.type == "cuda" else {})
    copies = {name: partial(target.copy_, tensor, non_blocking=True) for name, tensor in sources.items()}
    seconds = take_turns(copies, ROUNDS, clock)
    return figures + [
        Figure(f"machine.{name}_copy_gb_per_second", COPIED_BYTES / seconds[name] / 1e9, "GB/s") for name in copies
    ]


def matrix_products(device: torch.device, mixed_precision: str) -> dict[str, Callable[[], None]]:
    """Square matrix products for `take_turns`, named by their floating-point operations (a multiply-add is two)."""

    def product(matrix: torch.Tensor, out: torch.Tensor) -> None:
        torch.mm(matrix, matrix, out=out)
        wait_for(device)

    matrices = [torch.randn(side, side, device=device, dtype=DTYPES[mixed_precision]) for side in SIDES[device.type]]
    return {f"matmul {2 * len(matrix) ** 3}": partial(product, matrix, torch.empty_like(matrix)) for matrix in matrices}


def matmul_flops_per_second(seconds: Mapping[str, float]) -> float:
    """FLOP/s of the fastest matrix product timed by `take_turns`: the peak that training is compared with."""
    timed = [(name.split(), taken) for name, taken in seconds.items()]
    return max(int(name[1]) / taken for name, taken in timed if name[0] == "matmul")

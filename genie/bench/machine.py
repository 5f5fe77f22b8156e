"""Benchmark of the machine's peak speed: matrix products and memory copies."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from genie.bench.figures import Figure
from genie.bench.peak import peak_memory
from genie.bench.timing import take_turns, wait_for
from genie.core.params import Params
from genie.distributed.accelerator import make_accelerator

ROUNDS = 15
COPIED_BYTES = 2**27  # more than CPU caches hold
# Sides of square matrices; at one of them the hardware is close to its peak speed.
SIDES = {"cpu": (512, 1024), "cuda": (4096, 8192), "mps": (2048, 4096)}
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16}


def measure(params: Params, folder: Path) -> list[Figure]:
    """Measures the device that training uses, in the precision that training uses."""
    accelerator = make_accelerator(params.runtime)
    source, target = torch.zeros(2, COPIED_BYTES, dtype=torch.uint8)
    products = matrix_products(accelerator.device, accelerator.mixed_precision)
    seconds = take_turns({**products, "copy": lambda: target.copy_(source)}, ROUNDS)
    return [
        Figure("machine.matmul_tflops", matmul_flops_per_second(seconds) / 1e12, "TFLOP/s"),
        Figure("machine.copy_gb_per_second", COPIED_BYTES / seconds["copy"] / 1e9, "GB/s"),
        peak_memory("machine"),
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

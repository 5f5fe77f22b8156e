"""Minimal parts: few rounds, few frames, tiny models."""

import pytest
import torch

from genie.bench.inputs import write_data


def run_and_count(sides, rounds):
    """Returns 1, 2, 3 and so on seconds instead of measured times, whose differences would be random."""
    for side in sides.values():
        side()
    return {name: float(second) for second, name in enumerate(sides, start=1)}


TINY = {
    "machine": {"ROUNDS": 1, "COPIED_BYTES": 1024, "SIDES": {"cpu": (8, 16)}},
    "bare_simulator": {"FEW": 4, "MANY": 8, "ALL_BUFFERS": 4, "take_turns": run_and_count},
    "reading": {"ROUNDS": 1, "BATCHES": 1, "COPIED_BYTES": 1024},
    "training_phases": {"ROUNDS": 2, "GROWTH_ROUNDS": 1},
    "timed_step": {"WARM_UP": 1},
    "device_steps": {"STEPS": 1},
    "kernels": {"STEPS": 1},
    "variants": {"ROUNDS": 1, "CALLS": 1},
    "frame_rate": {"ROUNDS": 1, "FRAMES": 1, "MASKGIT_STEPS": 2, "BATCH": 2},
}


@pytest.fixture
def tiny_rounds(monkeypatch):
    for module, values in TINY.items():
        for name, value in values.items():
            monkeypatch.setattr(f"genie.bench.{module}.{name}", value)
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def bench_data(tiny_params, tmp_path_factory):
    """Folder that all parts read."""
    folder = tmp_path_factory.mktemp("bench")
    write_data(tiny_params, folder, frames=400, token_frames=400)
    return folder

"""`benchmarks.gpu` without a GPU, on which it runs the same code."""

import json
from functools import partial

import pytest
import torch
from accelerate.state import AcceleratorState

from benchmarks import gpu
from benchmarks.gpu_parts import STAGES

FRAMES = 600
TINY = {
    "ROUNDS": 1,
    "FRAMES": 1,
    "WORLDS": {"cpu": (1, 2)},
    "FEW_STEPS": 2,
    "FEW_FRAMES": {"train": 600, "val": 250, "test": 250},
}
FROM_FILES = {"dynamics", "tokenizer", "pixel_lam", "probe"}
SLOW = {f"{model}_{way}" for model in gpu.MODELS for way in ("compiled", "graphs")} - {"motion_compiled"}


@pytest.fixture
def measure(tiny_rounds, tiny_params, shared_world, tmp_path, monkeypatch):
    """Calls `gpu.run` with parts in this process, and with a compiler that only traces."""
    for name, value in TINY.items():
        monkeypatch.setattr(f"benchmarks.gpu_parts.{name}", value)
    monkeypatch.setattr("benchmarks.gpu_parts.open_world", lambda source, params: shared_world)
    monkeypatch.setattr("torch.compile", partial(torch.compile, backend="eager"))
    compiler = lambda runtime, device: "eager" if runtime.compile else "no"  # noqa: E731
    monkeypatch.setattr("genie.distributed.accelerator.resolve_compiler", compiler)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "restored afterwards")

    def in_process(part, params, folder, seconds):
        AcceleratorState._reset_state(reset_partial_state=True)  # it outlives its accelerator
        return gpu.call(part, params, folder)

    monkeypatch.setattr(gpu, "in_process", in_process)
    yield partial(gpu.run, tiny_params, "tiny", tmp_path / "gpu.json", frames=FRAMES)
    AcceleratorState._reset_state(reset_partial_state=True)
    torch._dynamo.reset()


@pytest.mark.slow
def test_every_part_measures(measure, tmp_path):
    parts = [part for part in gpu.PARTS if part not in SLOW]
    results = measure(minutes=30, only=parts)
    assert {part: tree["error"] for part, tree in results.items() if "error" in tree} == {}
    assert list(results) == ["scale", *parts], "in their order"
    assert json.loads((tmp_path / "gpu.json").read_text()) == gpu.rounded(results)

    assert {"bf16_tflops", "tf32_tflops", "fp32_tflops", "device_copy_gb_per_second"} <= results["machine"].keys()
    assert results["collect"]["frames"] == 3 * FRAMES
    for model in gpu.MODELS:
        tree = results[model]
        assert tree.keys() >= {"model_gflop", "forward_ms", "backward_ms", "optimizer_ms"}
        assert min(tree[f"{part}_ms"] for part in ("muon", "adamw", "clip_and_rest")) > 0
        assert set(tree["places"]) == {"memory", "files"} - (set() if model in FROM_FILES else {"files"})
        for figures in tree["places"].values():
            assert figures.keys() == {
                "trained_ms", "alone_ms", "waiting_share", "share_of_products", "share_of_products_alone"
            }  # fmt: skip
    assert results["motion_compiled"].keys() >= {"compiling_seconds", "pays_after_steps", "places"}
    kernels = results["dynamics_profile"]["kernels"]
    assert len(kernels) == 15
    assert kernels == sorted(kernels, key=lambda kernel: -kernel["ms"])
    assert results["attention"].keys() >= {"spatial", "temporal"}
    assert results["stages"]["seconds"].keys() == set(STAGES)
    assert results["play"]["cpu_fp32"].keys() == {"worlds_1", "worlds_2"}

    lines = gpu.table(results).splitlines()
    assert sum(line.startswith("tokenizer ") for line in lines) == 2, "a line for each place"
    assert any(line.startswith("stages: seconds: collect") for line in lines)


def test_a_part_that_fails_is_reported_and_others_go_on(measure, monkeypatch):
    monkeypatch.setitem(gpu.PARTS, "machine", ("train", "nothing"))
    results = measure(minutes=30, only=["machine", "attention"])
    assert "nothing" in results["machine"]["error"]
    assert results["attention"]["temporal"].keys() == {"fused", "plain", "side_by_side"}
    assert "machine: AttributeError" in gpu.table(results)


def test_no_part_starts_when_the_time_is_over(measure):
    results = measure(minutes=0, only=["machine", "motion"])
    assert {part: results[part]["error"] for part in ("machine", "collect", "motion")} == dict.fromkeys(
        ("machine", "collect", "motion"), "no time left"
    )


@pytest.mark.slow
def test_a_part_runs_in_a_process_which_ends_with_the_time(tiny_params, tmp_path):
    assert gpu.in_process(("machine",), tiny_params, tmp_path, 120)["device"] == "cpu"
    with pytest.raises(ValueError, match="ended, as the time was over"):
        gpu.in_process(("machine",), tiny_params, tmp_path, 0.01)


def test_compiling_pays_after_the_steps_that_save_its_time():
    plain = {"first_steps_seconds": 2.0, "places": {"memory": {"trained_ms": 30.0}}}
    compiled = {"first_steps_seconds": 62.0, "places": {"memory": {"trained_ms": 20.0}}}
    assert gpu.pays_after(plain, compiled) == {"compiling_seconds": 60.0, "pays_after_steps": 6000}
    assert gpu.pays_after(compiled, plain)["pays_after_steps"] is None
    assert gpu.pays_after(plain, {"error": "no compiler works here"}) == {}

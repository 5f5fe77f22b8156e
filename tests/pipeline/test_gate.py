import pytest
import torch

from genie.core.params import load_params
from genie.evaluation.controllability import evaluate_lam
from genie.models.pixel_lam import build_pixel_lam
from genie.pipeline.gate import GateError, check_gate

HEALTHY = {"codebook_perplexity": 5.0, "information": 0.8, "psnr_moving": 25.0, "psnr_random_action_moving": 21.0}
KINDS = ("surprise", "pixels")
WEAK = {  # metrics of nearly uninformative actions, and the error
    "surprise": ({"information": 0.1}, r"perplexity 5\.00.* 0\.10 bits of the next motion .*lam\.kind=pixels"),
    "pixels": (
        {"psnr_random_action_moving": 24.9},
        r"perplexity 5\.00.* gain over random actions 0\.10 dB.*lam\.pixels\.steps",
    ),
}


@pytest.fixture
def thresholds():
    """Thresholds of the real `params.yaml` by kind: tiny models could not pass them, so `tiny_params` lets all pass."""
    return {kind: load_params().lam.model_copy(update={"kind": kind}).of_kind() for kind in KINDS}


def test_a_collapsed_lam_does_not_pass(coinrun, tiny_params, thresholds, scrambled):
    lam = scrambled(build_pixel_lam(tiny_params.lam.model_copy(update={"kind": "pixels"}).of_kind()))
    with torch.no_grad():
        lam.quantizer.codebook[1:] = 1e3  # all but one code are out of reach
    metrics = evaluate_lam(lam, coinrun["val"], window=5, num_windows=16, seed=0)
    assert metrics["codebook_perplexity"] == pytest.approx(1)
    with pytest.raises(GateError, match=r"perplexity 1\.00 of 6 actions \(at least 3") as fault:
        check_gate(metrics, thresholds["pixels"])
    gain = metrics["psnr_moving"] - metrics["psnr_random_action_moving"]
    assert f"gain over random actions {gain:.2f} dB" in str(fault.value)
    assert f"(at least {thresholds['pixels'].gate_min_gain_db})" in str(fault.value)
    assert "lam.seed" in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("kind", KINDS)
def test_actions_that_say_next_to_nothing_do_not_pass(kind, thresholds):
    weak, message = WEAK[kind]
    with pytest.raises(GateError, match=message) as fault:
        check_gate(HEALTHY | weak, thresholds[kind])
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("kind", "name", "measured"), [("surprise", "gate_min_information", 0.8), ("pixels", "gate_min_gain_db", 4.0)]
)
def test_a_healthy_lam_passes_and_a_threshold_is_enough(kind, name, measured, thresholds):
    check_gate(HEALTHY, thresholds[kind])
    check_gate(HEALTHY, thresholds[kind].model_copy(update={"gate_min_perplexity": 5.0, name: measured}))
    with pytest.raises(GateError, match=r"at least 5\.1"):
        check_gate(HEALTHY, thresholds[kind].model_copy(update={"gate_min_perplexity": 5.1}))
    with pytest.raises(GateError, match=rf"at least {measured + 0.1}"):
        check_gate(HEALTHY, thresholds[kind].model_copy(update={name: measured + 0.1}))

import pytest
import torch

from genie.evaluation.controllability import evaluate_lam
from genie.evaluation.gate import GateError, check_gate
from genie.models.lam import build_lam
from genie.params import load_params

HEALTHY = {"codebook_perplexity": 6.0, "psnr_moving": 25.0, "psnr_random_action_moving": 21.0}


@pytest.fixture
def thresholds(tiny_params):
    """Those of the real `params.yaml`: a tiny model could not pass them, and its own let all pass."""
    real = load_params().lam
    names = ("gate_min_perplexity", "gate_min_gain_db")
    return tiny_params.lam.model_copy(update={name: getattr(real, name) for name in names})


def test_a_collapsed_lam_does_not_pass(coinrun, tiny_params, thresholds, scrambled):
    lam = scrambled(build_lam(tiny_params.lam))
    with torch.no_grad():
        lam.quantizer.codebook[1:] = 1e3  # all but one code are out of reach
    metrics = evaluate_lam(lam, coinrun["val"], window=5, num_windows=16, seed=0)
    assert metrics["codebook_perplexity"] == pytest.approx(1)
    with pytest.raises(GateError, match=r"perplexity 1\.00 of 8 actions \(at least 4") as fault:
        check_gate(metrics, thresholds)
    gain = metrics["psnr_moving"] - metrics["psnr_random_action_moving"]
    assert f"gain over random actions {gain:.2f} dB" in str(fault.value)
    assert f"(at least {thresholds.gate_min_gain_db})" in str(fault.value)
    assert "lam.seed" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_actions_that_the_decoder_ignores_do_not_pass(thresholds):
    metrics = HEALTHY | {"psnr_random_action_moving": 24.9}
    with pytest.raises(GateError, match=r"perplexity 6\.00.* gain over random actions 0\.10 dB.*lam\.steps"):
        check_gate(metrics, thresholds)


def test_a_healthy_lam_passes_and_a_threshold_is_enough(thresholds):
    check_gate(HEALTHY, thresholds)
    check_gate(HEALTHY, thresholds.model_copy(update={"gate_min_perplexity": 6.0, "gate_min_gain_db": 4.0}))
    with pytest.raises(GateError, match=r"at least 6\.1"):
        check_gate(HEALTHY, thresholds.model_copy(update={"gate_min_perplexity": 6.1}))
    with pytest.raises(GateError, match=r"at least 4\.1"):
        check_gate(HEALTHY, thresholds.model_copy(update={"gate_min_gain_db": 4.1}))

"""The gate after the LAM: collapsed latent actions stop the pipeline before hours go into dynamics."""

from collections.abc import Mapping

from genie.params import LamParams


class GateError(ValueError):
    """The latent actions are of no use; the message says what was measured and what to try."""


def check_gate(metrics: Mapping[str, float], params: LamParams) -> None:
    """Holds validation metrics of `evaluate_lam` against the gate's thresholds.

    Raises:
        GateError: too few effective actions, or actions that the decoder does not listen to.
    """
    perplexity = metrics["codebook_perplexity"]
    gain = metrics["psnr_moving"] - metrics["psnr_random_action_moving"]
    measured = (
        f"perplexity {perplexity:.2f} of {params.num_actions} actions (at least {params.gate_min_perplexity}), "
        f"gain over random actions {gain:.2f} dB on moving frames (at least {params.gate_min_gain_db})"
    )
    if perplexity < params.gate_min_perplexity:
        advice = "train longer (lam.steps), lower lam.commitment_weight or try another lam.seed"
    elif gain < params.gate_min_gain_db:
        advice = "train longer (lam.steps) or raise collect.action_repeat, so that actions show"
    else:
        return
    raise GateError(f"the latent actions collapsed: {measured}. To try: {advice}")

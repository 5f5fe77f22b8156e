"""The gate after the LAM: latent actions of no use stop the pipeline before hours go into dynamics."""

from collections.abc import Mapping

from genie.core.params import PixelLamParams, SurpriseLamParams


class GateError(ValueError):
    """The latent actions are of no use; the message says what was measured and what to try."""


def check_gate(metrics: Mapping[str, float], params: SurpriseLamParams | PixelLamParams) -> None:
    """Holds validation metrics of `evaluate_lam` against the gate's thresholds.

    Raises:
        GateError: too few effective actions; or actions that the decoder does not listen to (kind `pixels`), or that
            say nothing of the next motion that the past does not (kind `surprise`).
    """
    perplexity = metrics["codebook_perplexity"]
    measured = f"perplexity {perplexity:.2f} of {params.num_actions} actions (at least {params.gate_min_perplexity}), "
    if isinstance(params, SurpriseLamParams):
        gain, least = metrics["information"], params.gate_min_information
        measured += f"{gain:.2f} bits of the next motion beyond the past (at least {least})"
        if_few = "train longer (lam.surprise.steps, lam.surprise.expectation_steps) or try another lam.seed"
        if_weak = "collect more (collect.frames), raise collect.action_repeat so that actions show, or lam.kind=pixels"
    else:
        gain, least = metrics["psnr_moving"] - metrics["psnr_random_action_moving"], params.gate_min_gain_db
        measured += f"gain over random actions {gain:.2f} dB on moving frames (at least {least})"
        if_few = "train longer (lam.pixels.steps), lower lam.pixels.commitment_weight or try another lam.seed"
        if_weak = "train longer (lam.pixels.steps) or raise collect.action_repeat, so that actions show"
    if perplexity < params.gate_min_perplexity:
        raise GateError(f"the latent actions collapsed: {measured}. To try: {if_few}")
    if gain < least:
        raise GateError(f"the latent actions say too little: {measured}. To try: {if_weak}")

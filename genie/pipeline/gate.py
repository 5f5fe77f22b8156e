"""Gate after LAM training: stops the pipeline on unusable latent actions, before hours of dynamics training."""

from collections.abc import Mapping

from genie.core.params import PixelLamParams, SurpriseLamParams


class GateError(ValueError):
    """The latent actions are unusable; the message states the measurements and what to try."""


def check_gate(metrics: Mapping[str, float], params: SurpriseLamParams | PixelLamParams) -> None:
    """Checks validation metrics of `evaluate_lam` against the gate's thresholds.

    Raises:
        GateError: if the latent actions collapsed to too few codes, if the decoder ignores them (kind `pixels`), or if
            they give too little information about the next motion beyond the past (kind `surprise`).
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

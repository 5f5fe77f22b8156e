"""MaskGIT sampling: all of a frame's tokens from a few parallel steps (MaskGIT, arXiv 2202.04200, section 3.2).

Axes: `B` batch, `N` tokens a frame, `K` codes.
"""

import math

import torch

from genie.models.dynamics import Dynamics
from genie.models.st_transformer import KeyValue


def num_masked_after(num_tokens: int, num_steps: int) -> list[int]:
    """How many tokens stay masked after each step: the cosine schedule (MaskGIT, section 3.3); the last is 0."""
    return [int(num_tokens * math.cos(math.pi / 2 * (step + 1) / num_steps) + 1e-6) for step in range(num_steps)]


@torch.no_grad()
def sample_frame(
    dynamics: Dynamics,
    past: list[KeyValue],
    action_B: torch.Tensor,
    time: int,
    num_steps: int,
    temperature: float,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws the tokens of the frame at `time`, from all masked to none.

    Tokens are revealed in random order: the usual order, most confident first, tends to copy the last frame.

    Args:
        dynamics: the model, in eval mode.
        past: its memory of the frames before.
        action_B: latent action that leads to the frame.
        time: when the frame is, one after the last remembered.
        num_steps: MaskGIT steps.
        temperature: of the tokens' distribution; 0 takes the most likely.
        generator: source of randomness.

    Returns:
        Tokens `(B, N)` int64 in [0, K).
    """
    device, shape = action_B.device, (len(action_B), dynamics.num_tokens)
    tokens_BN = torch.full(shape, dynamics.mask_token, device=device)
    rank_BN = torch.rand(shape, generator=generator, device=device).argsort(-1).argsort(-1)
    for num_masked in num_masked_after(dynamics.num_tokens, num_steps):
        logits_BNK = dynamics.predict(tokens_BN, action_B, time, past)
        drawn_BN = _draw(logits_BNK, temperature, generator)
        reveal_BN = (tokens_BN == dynamics.mask_token) & (rank_BN >= num_masked)
        tokens_BN = torch.where(reveal_BN, drawn_BN, tokens_BN)
    return tokens_BN


def _draw(logits_BNK: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
    if temperature == 0:
        return logits_BNK.argmax(-1)
    # Gumbel-max: an exact draw without a sum over the codes or a round trip to the host.
    uniform = torch.rand(logits_BNK.shape, generator=generator, device=logits_BNK.device).clamp_min(1e-20)
    return (logits_BNK / temperature - (-uniform.log()).log()).argmax(-1)

"""MaskGIT sampling: samples all tokens of a frame in a few parallel steps (MaskGIT, arXiv 2202.04200, section 3.2).

Axes: `B` batch, `N` tokens per frame, `K` codes, `M` tokens drawn at once, `R` those of a row or of a chunk.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from genie.models.chunks import chunks
from genie.models.dynamics import Dynamics
from genie.models.memory import Memory


@dataclass(frozen=True)
class Sampling:
    """Sampling settings.

    Attributes:
        maskgit_steps: parallel steps per frame, at least 1.
        temperature: temperature of the tokens' distribution, at least 0; 0 takes the most likely token.

    Raises:
        ValueError: a value has the wrong type or is out of range.
    """

    maskgit_steps: int
    temperature: float

    def __post_init__(self):
        if not isinstance(self.maskgit_steps, int) or self.maskgit_steps < 1:
            raise ValueError(f"maskgit_steps {self.maskgit_steps!r} is no whole number from 1 on")
        if not isinstance(self.temperature, int | float) or not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature!r} is no number from 0 on")


def num_masked_after(num_tokens: int, num_steps: int) -> list[int]:
    """Number of tokens still masked after each step: the cosine schedule (MaskGIT, section 3.3); the last is 0."""
    return [int(num_tokens * math.cos(math.pi / 2 * (step + 1) / num_steps) + 1e-6) for step in range(num_steps)]


@torch.no_grad()
def sample_frame(
    dynamics: Dynamics,
    memory: Memory,
    action_B: torch.Tensor,
    num_steps: int,
    temperature: float,
    generators: Sequence[torch.Generator | None] = (None,),
) -> Memory:
    """Samples the frame after those in memory: all its tokens start masked, and each step reveals some.

    Tokens are revealed in random order: the usual order, most confident first, tends to copy the last frame. All
    rows of a generator share the order, so that at temperature 0 they differ only by their past and their action.

    Args:
        dynamics: dynamics model in eval mode.
        memory: its memory of the past.
        action_B: latent action that leads to the frame.
        num_steps: number of MaskGIT steps.
        temperature: temperature of the tokens' distribution; 0 takes the most likely token.
        generators: sources of randomness, each of an equal number of consecutive rows. A generator draws what it would
            draw if its rows were sampled alone.

    Returns:
        The memory extended by this frame; `last_BN` are its tokens, int64 in [0, K).
    """
    num_tokens, device = dynamics.num_tokens, action_B.device
    tokens_BN = torch.full((len(action_B), num_tokens), dynamics.mask_token, device=device)
    ranks = [torch.randperm(num_tokens, generator=each, device=device) for each in generators]
    order_BN = torch.stack(ranks).argsort(descending=True).repeat_interleave(len(action_B) // len(generators), dim=0)
    memory, num_revealed = dynamics.expect(memory, action_B), 0
    for num_masked in num_masked_after(num_tokens, num_steps):
        logits_BNK, memory = dynamics.predict(tokens_BN, memory)
        places_BR = order_BN[:, num_revealed : num_tokens - num_masked]
        tokens_BN = tokens_BN.scatter(1, places_BR, _draw(logits_BNK, places_BR, temperature, generators))
        num_revealed = num_tokens - num_masked
    return dynamics.append(tokens_BN, memory)


def _draw(
    logits_BNK: torch.Tensor,
    places_BR: torch.Tensor,
    temperature: float,
    generators: Sequence[torch.Generator | None],
) -> torch.Tensor:
    """Draws the tokens at R places of each row."""
    (num_rows, num_tokens, num_codes), device = logits_BNK.shape, logits_BNK.device
    index_M = (torch.arange(num_rows, device=device).unsqueeze(1) * num_tokens + places_BR).flatten()
    logits_MK = logits_BNK.flatten(0, 1)[index_M]
    if temperature == 0:
        return logits_MK.argmax(-1).view(places_BR.shape)
    # Inverse transform sampling: looks up one uniform number per token in the cumulative probabilities. This is exact,
    # and needs neither noise for each code nor a round trip to the host.
    shape = (num_rows // len(generators), num_tokens, 1)
    uniform_BN1 = torch.cat([torch.rand(shape, generator=each, device=device) for each in generators])
    drawn = []
    for logits_RK, uniform_R1 in chunks(logits_MK, uniform_BN1.flatten(0, 1)[index_M], width=num_codes):
        summed_RK = (logits_RK / temperature).softmax(-1).cumsum(-1)
        drawn.append(torch.searchsorted(summed_RK, uniform_R1 * summed_RK[:, -1:], right=True))
    return torch.cat(drawn).view(places_BR.shape).clamp_max(num_codes - 1)  # if a product rounds to the sum

"""Steering: which latent action an arrow presses, given the recent motion and the previous latent action.

Latent actions encode surprise, so "right" is a different one on the ground, in the air and at full speed. The world
does not depend on the steering: it is trained last, for players, from transitions whose true action is known.

Axes: `B` worlds, `M` any number of transitions, `A` latent actions, `E` effective actions, `H W` pixels, `R` past
displacements, `d` the two components of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from genie.distributed.collectives import my_share, num_ranks
from genie.models.measured_size import MEASURED_SIZE
from genie.models.recent_motion import (
    REMEMBERED,
    RecentMotion,
    as_seen,
    cut_short,
    look,
    num_seen,
    observe_motion,
)

if TYPE_CHECKING:
    from genie.core.params import SteeringParams

HIDDEN = 128  # units per layer
FORGOTTEN = 0.1  # share of training transitions whose previous latent action is hidden
TELLING = 2  # exponent that weights P(effect | latent, past)


@dataclass(frozen=True)
class SteeringConfig:
    """Shape of the steering network.

    Attributes:
        num_effects: E.
        num_actions: A.
        frame_size: rows and columns of a frame at the measured size.
        lam_fingerprint: identifies the LAM of the latent actions.
    """

    num_effects: int
    num_actions: int
    frame_size: tuple[int, int] = MEASURED_SIZE
    lam_fingerprint: str = ""


class Steering(nn.Module):
    """Chooses latent actions by `P(latent action | effective action, recent motion, previous latent action)`.

    Args:
        config: shape of the model.
    """

    kind, stage = "steering", "train_steering"
    config_class = SteeringConfig
    fingerprint: str  # set by `load_model`
    history = REMEMBERED + 1  # frames before the next one
    observe = staticmethod(observe_motion)

    def __init__(self, config: SteeringConfig):
        super().__init__()
        self.config = config
        self.effect_in = nn.Embedding(config.num_effects, HIDDEN)
        self.before_in = nn.Embedding(config.num_actions + 1, HIDDEN)
        self.seen_in = nn.Linear(num_seen(config.frame_size), HIDDEN)
        self.layers = nn.Sequential(
            nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, config.num_actions)
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    @property
    def unknown(self) -> int:
        """Index of an unknown previous latent action."""
        return self.config.num_actions

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy of the latent action that followed.

        Args:
            batch: transitions as returned by `observe_motion`, and int64 `effects_M` in [0, E), `before_M` and
                `actions_M` in [0, A), the previous and the present latent action of each.

        Returns:
            The loss, and metrics: `cross_entropy`, which is the loss, in nats, and `accuracy`, the share of transitions
            whose latent action is the likeliest.
        """
        past_MRd, before_M, actions_M = batch["past_MRd"], batch["before_M"], batch["actions_M"]
        if self.training:
            past_MRd = cut_short(past_MRd)
            drawn_M = my_share(torch.rand(num_ranks() * len(before_M), device=before_M.device))
            before_M = before_M.masked_fill(drawn_M < FORGOTTEN, self.unknown)
        logits_MA = self.logits(batch["coarse_MHW"], past_MRd, before_M, batch["effects_M"])
        loss = F.cross_entropy(logits_MA, actions_M)
        accuracy = (logits_MA.argmax(-1) == actions_M).float().mean()
        return loss, {"cross_entropy": loss.detach(), "accuracy": accuracy}

    def logits(
        self, coarse_MHW: torch.Tensor, past_MRd: torch.Tensor, before_M: torch.Tensor, effects_M: torch.Tensor
    ) -> torch.Tensor:
        """Logits `(M, A)` of the latent action that follows.

        Args:
            coarse_MHW: frames as returned by `look`.
            past_MRd: the displacements that led to them, the latest first, in pixels; 0 where unknown.
            before_M: the latent action that led to them, or `unknown`.
            effects_M: the effective action that follows them.
        """
        with torch.autocast(coarse_MHW.device.type, enabled=False):
            seen_MD = self.seen_in(as_seen(coarse_MHW, past_MRd))
            return self.layers(seen_MD + self.before_in(before_M) + self.effect_in(effects_M))

    @torch.no_grad()
    def press(self, motion: RecentMotion, before_B: torch.Tensor) -> torch.Tensor:
        """The latent action that each arrow presses: `(B, E)` int64.

        It maximises `P(latent | effect, past) * P(effect | latent, past) ** TELLING`, with all effects taken as equally
        frequent. The first factor alone would often choose the same latent action for many arrows, since most pasts
        continue in one way whatever is pressed. The second alone would choose latent actions that hardly ever follow.

        Args:
            motion: recent motion of the worlds.
            before_B: the latent action that led to their last frame, or `unknown`.
        """
        num_effects = self.config.num_effects
        seen_B = look(motion.frame_BHWC), motion.moved_BRd.flip(1), before_B
        coarse_MHW, past_MRd, before_M = (part.repeat_interleave(num_effects, dim=0) for part in seen_B)
        effects_M = torch.arange(num_effects, device=before_B.device).repeat(len(before_B))
        likely_MA = self.logits(coarse_MHW, past_MRd, before_M, effects_M).log_softmax(-1)
        likely_BEA = likely_MA.unflatten(0, (-1, num_effects))
        telling_BEA = likely_BEA - likely_BEA.logsumexp(dim=1, keepdim=True)
        return (likely_BEA + TELLING * telling_BEA).argmax(-1)

    def press_in_turn(self, frames_THWC: torch.Tensor, effects_S: Sequence[int]) -> list[int]:
        """The S latent actions that arrows would have pressed between consecutive frames, with nothing known before.

        Args:
            frames_THWC: uint8, T = S + 1.
            effects_S: the effective action taken after each frame but the last.
        """
        motion, latents = RecentMotion.of(frames_THWC[None, :1]), [self.unknown]
        for effect, frame_HWC in zip(effects_S, frames_THWC[1:], strict=True):
            pressed_BE = self.press(motion, torch.tensor(latents[-1:], device=frames_THWC.device))
            latents.append(int(pressed_BE[0, effect]))
            motion = motion.then(frame_HWC[None])
        return latents[1:]


def build_steering(params: "SteeringParams", **known) -> Steering:
    """Builds the steering network with weights initialised from `params.seed`.

    Args:
        params: its seed.
        known: config fields: those of the actions, from the caches, and `num_effects`.
    """
    torch.manual_seed(params.seed)
    return Steering(SteeringConfig(**known))

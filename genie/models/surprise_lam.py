"""The latent action model of kind `surprise`: an action is what the past does not tell of the next motion.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of transitions, `H W C` pixels, `P` past
transitions, `d` the two numbers of a displacement, `A` latent actions, `D` features.

Where the camera follows the agent, the whole picture moves as the agent does, and most of that motion follows from the
past: a jump once begun is decided by its speed. Genie's objective (section 2.1) spends codes on it all the same. Here
the next displacement is measured (`genie.models.registration`) and expected from the past; the surprise, what was
measured less what was expected in units of its own deviation, is what codes tell.

They begin as its clusters (the EMA quantizer's), and are refined by maximum likelihood: a mixture density network
(Bishop 1994) with a component an action, whose weights a gate draws from a second view of the same transition, the
sprite before and after it, and whose means may depend on the past. An action is inferred by the largest posterior.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from genie.models.config import config_from
from genie.models.quantizer import VectorQuantizer, code_statistics
from genie.models.registration import MAX_SHIFT, Box, displacements, past_displacements

if TYPE_CHECKING:
    from genie.core.params import SurpriseLamParams

PIXELS = 8.0  # displacements are seen in units of so many pixels
MIN_DEVIATION, MAX_DEVIATION = 0.1, 50.0  # pixels; what registration cannot tell is no surprise
MAX_SURPRISE = 3.0  # deviations, beyond which clusters are not pulled farther
RARE = 0.3  # of an equal share, below which a cluster is drawn anew: outliers are no action
FREEDOM = 4.0  # degrees of freedom of Student's t: registration now and then fails altogether
# Density of a displacement that was not measured but missed: a hundredth of them, anywhere. Else they take a code.
LOG_FAILED = math.log(0.01 / (2 * MAX_SHIFT) ** 2)
SURROUNDINGS, COARSE = 20, 2  # pixels seen on each side of the sprite's middle, and averaged: where it stands and lands


class LamInputError(ValueError):
    """Frames that the model was not made for; the message says which it takes."""


@dataclass(frozen=True)
class SurpriseLamConfig:
    """Shape of the latent action model; the meaning of the first five values stands in `params.yaml`.

    Attributes:
        sprite: where the agent is in every frame, a `Box`.
        frame_size: rows and columns of a frame.
    """

    num_actions: int
    history: int
    width: int
    ema_decay: float
    expectation_steps: int
    sprite: tuple[int, int, int, int]
    frame_size: tuple[int, int]


class SurpriseLam(nn.Module):
    """Frames to latent actions.

    Args:
        config: its shape.
    """

    kind, stage = "surprise_lam", "train_lam"
    config_class = SurpriseLamConfig

    def __init__(self, config: SurpriseLamConfig):
        super().__init__()
        self.config = config
        self.num_actions, self.history = config.num_actions, config.history + 1
        sprite = Box(*config.sprite)
        self.sprite = sprite
        middle = Box(sprite.top + sprite.height // 2, sprite.left + sprite.width // 2, 0, 0)
        self.surroundings = middle.grown(SURROUNDINGS, SURROUNDINGS, config.frame_size)
        pixels = 3 * sprite.height * sprite.width
        coarse = (self.surroundings.height // COARSE) * (self.surroundings.width // COARSE)
        num_past = 2 * config.history + coarse + pixels
        num_view = 2 * min(2, config.history) + 2 * pixels
        self.expectation = _mlp(num_past, config.width, 4)
        self.quantizer = VectorQuantizer(config.num_actions, 2, 0.0, config.ema_decay, RARE)
        self.shift = _mlp(num_past, config.width, 2 * config.num_actions + 2, born_zero=True)
        self.gate = _mlp(num_view, config.width, config.num_actions, born_zero=True)
        self.offset = nn.Parameter(torch.zeros(config.num_actions, 2))
        self.log_spread = nn.Parameter(torch.full((2,), -0.5))
        self.register_buffer("clusters", torch.zeros(config.num_actions, 2))
        self.register_buffer("steps_trained", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Negative log-likelihood, in nats, of the next displacements; and metrics.

        In training, for the first `expectation_steps`, that of the expectation alone while clusters form; then that of
        the mixture, which begins as those clusters.

        Args:
            batch: transitions as `observe` gives them.

        Returns:
            The loss, and metrics: `cross_entropy` (nats, what the loss is), `information` (bits that the inferred
            action gives of the next displacement, beyond the past), and those of `code_statistics`.
        """
        with torch.autocast(batch["next_Md"].device.type, enabled=False):  # a tenth of 30 pixels is lost in bfloat16
            surprise_Md, log_deviation_Md, likelihood_MA, posterior_MA = self._weigh(batch)
            expected = (log_deviation_Md + 0.5 * surprise_Md.square()).sum(-1).mean() + math.log(2 * math.pi)
            clusters_M = self.quantizer(surprise_Md.detach().clamp(-MAX_SURPRISE, MAX_SURPRISE))[1]
            if self.training:
                self._follow_clusters()
            is_refined = self.steps_trained > self.config.expectation_steps
            refined = -posterior_MA.logsumexp(-1).mean()
            loss = torch.where(is_refined, refined, expected)
            codes_M = torch.where(is_refined, posterior_MA.argmax(-1), clusters_M)
            statistics = code_statistics(codes_M, self.num_actions)
            metrics = {"cross_entropy": loss.detach(), "information": information(likelihood_MA.detach(), codes_M)}
            return loss, metrics | statistics

    def infer_actions(self, frames_BTHWC: torch.Tensor) -> torch.Tensor:
        """Latent actions `(B, T-1)` int64 in [0, A) of uint8 frames `(B, T, H, W, 3)`; else as `judge`."""
        return self.judge(frames_BTHWC)[0]

    @torch.no_grad()
    def judge(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Infers latent actions, and how likely each makes the motion that was measured.

        Both depend on a transition's two frames and the `history - 1` before them; before the first frame, the world
        stands still.

        Args:
            frames_BTHWC: uint8 frames, T >= 2.

        Returns:
            Latent actions `(B, T-1)` int64 in [0, A), the largest posterior's; and `(B, T-1, A)`, the logarithm of the
            density of the displacement given the past and each action, in nats, of pixels.

        Raises:
            LamInputError: frames of another size.
        """
        if tuple(frames_BTHWC.shape[2:4]) != tuple(self.config.frame_size):
            found, wanted = ("x".join(map(str, size)) for size in (frames_BTHWC.shape[2:4], self.config.frame_size))
            raise LamInputError(
                f"frames of {found} pixels, but this latent action model was trained on {wanted}; train it on such "
                "frames: dvc repro train_lam"
            )
        batch = {name: part.flatten(0, 1) for name, part in self.observe(frames_BTHWC).items()}
        with torch.autocast(frames_BTHWC.device.type, enabled=False):
            *_, likelihood_MA, posterior_MA = self._weigh(batch)
        return tuple(part.unflatten(0, (len(frames_BTHWC), -1)) for part in (posterior_MA.argmax(-1), likelihood_MA))

    @torch.no_grad()
    def observe(self, frames_BTHWC: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the model knows of each transition.

        Args:
            frames_BTHWC: uint8 frames, T >= 2.

        Returns:
            `next_Md` and `past_MPd`, the displacement of the transition and of those before it, the latest first and
            0 before the first; `surroundings_MHW` uint8, gray, and `sprites_M2HWC` uint8, before and after it; each
            `(B, S, ...)`.
        """
        frames_BTHWC, moved_BSd = self._follow(frames_BTHWC)
        sprites_BTHWC = self.sprite.crop(frames_BTHWC)
        gray_BSHW = self.surroundings.crop(frames_BTHWC[:, :-1]).float().mean(-1)
        gray_BSHW = F.avg_pool2d(gray_BSHW, COARSE).to(torch.uint8)
        return {
            "next_Md": moved_BSd,
            "past_MPd": past_displacements(moved_BSd, self.history - 1),
            "surroundings_MHW": gray_BSHW,
            "sprites_M2HWC": torch.stack([sprites_BTHWC[:, :-1], sprites_BTHWC[:, 1:]], dim=2),
        }

    def sprites(self, frames_MHWC: torch.Tensor) -> list[Box]:
        """Where the agent is in each of uint8 frames."""
        return [self.sprite] * len(frames_MHWC)

    def _follow(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames in which the sprite is where `sprite` says, and how far the picture moved in each transition."""
        return frames_BTHWC, displacements(frames_BTHWC, ignored=self.sprite)

    def _weigh(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The surprise and the logarithm of its deviation, as `_surprise` gives them; the logarithm of the density of
        the displacement under each action, as `_likelihood` gives it; and that weighted by the gate, which is the
        action's posterior but for a constant."""
        past_MD = self._past(batch)
        surprise_Md, log_deviation_Md = self._surprise(batch, past_MD)
        likelihood_MA = self._likelihood(past_MD, surprise_Md, log_deviation_Md)
        posterior_MA = likelihood_MA + self.gate(self._view(batch)).log_softmax(-1)
        return surprise_Md, log_deviation_Md, likelihood_MA, posterior_MA

    def _past(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """What is known before the transition: `(M, D)`."""
        parts = batch["past_MPd"] / PIXELS, _pixels(batch["surroundings_MHW"]), _pixels(batch["sprites_M2HWC"][:, 0])
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def _view(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The second view of the transition, which does not show its displacement: `(M, D)`."""
        parts = _pixels(batch["sprites_M2HWC"]), batch["past_MPd"][:, :2] / PIXELS
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def _surprise(self, batch: dict[str, torch.Tensor], past_MD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How far the next displacement is from what is expected, in deviations, and their logarithm: `(M, 2)` each."""
        mean_Md, log_deviation_Md = self.expectation(past_MD).chunk(2, dim=-1)
        log_deviation_Md = log_deviation_Md.clamp(math.log(MIN_DEVIATION), math.log(MAX_DEVIATION))
        return (batch["next_Md"] - mean_Md * PIXELS) * torch.exp(-log_deviation_Md), log_deviation_Md

    def _likelihood(
        self, past_MD: torch.Tensor, surprise_Md: torch.Tensor, log_deviation_Md: torch.Tensor
    ) -> torch.Tensor:
        """Logarithm of the density of the next displacement under each action, given the past: `(M, A)`."""
        shift_MAd, spread_Md = self.shift(past_MD).split([2 * self.num_actions, 2], dim=-1)
        log_spread_Md = self.log_spread + spread_Md
        means_MAd = self.clusters + self.offset + shift_MAd.unflatten(-1, (-1, 2))
        distance_MA = ((surprise_Md[:, None] - means_MAd) * torch.exp(-log_spread_Md)[:, None]).square().sum(-1)
        # Student's t in two dimensions; its constant is that of the normal distribution, whatever the freedom.
        log_scale_M1 = (log_deviation_Md + log_spread_Md).sum(-1, keepdim=True) + math.log(2 * math.pi)
        log_density_MA = -(FREEDOM / 2 + 1) * torch.log1p(distance_MA / FREEDOM) - log_scale_M1
        return torch.logaddexp(log_density_MA, torch.full_like(log_scale_M1, LOG_FAILED))

    @torch.no_grad()
    def _follow_clusters(self) -> None:
        """Counts the step; as long as motion is only expected, the mixture's components are where the clusters are.

        A buffer, from which a parameter departs later: a parameter that is sharded could not be set here.
        """
        self.steps_trained += 1
        is_refined = self.steps_trained > self.config.expectation_steps
        self.clusters.copy_(torch.where(is_refined, self.clusters, self.quantizer.codebook))


def _mlp(num_inputs: int, width: int, num_outputs: int, *, born_zero: bool = False) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(num_inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_outputs)
    )
    if born_zero:
        nn.init.zeros_(layers[-1].weight)
        nn.init.zeros_(layers[-1].bias)
    return layers


def _pixels(values: torch.Tensor) -> torch.Tensor:
    """uint8 to [-1, 1]."""
    return values.float() / 127.5 - 1


def information(likelihood_MA: torch.Tensor, codes_M: torch.Tensor) -> torch.Tensor:
    """Bits, a scalar, that latent actions give of the next displacement beyond the past.

    The mean logarithm of its density given past and action over that given the past alone, in which each action has
    the share that it has here: at most log2 A, 0 if all actions say the same, below 0 if they say what is wrong.

    Args:
        likelihood_MA: as `SurpriseLam.judge` gives it.
        codes_M: the latent actions.
    """
    share_A = torch.bincount(codes_M, minlength=likelihood_MA.shape[-1]) / len(codes_M)
    without_M = (likelihood_MA + share_A.log()).logsumexp(-1)
    with_M = likelihood_MA.gather(-1, codes_M.unsqueeze(-1)).squeeze(-1)
    return (with_M - without_M).mean() / math.log(2)


def build_surprise_lam(params: "SurpriseLamParams", sprite: Box, frame_size: tuple[int, int]) -> SurpriseLam:
    """A latent action model with the weights that `params.seed` draws, for frames whose sprite is there."""
    torch.manual_seed(params.seed)
    return SurpriseLam(config_from(SurpriseLamConfig, params, sprite=tuple(sprite), frame_size=tuple(frame_size)))

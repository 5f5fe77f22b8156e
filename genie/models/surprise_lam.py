"""Latent action model of kind `surprise`: an action is the part of the next motion that the past does not predict.

Axes: `B` batch, `T` frames, `S = T - 1` transitions, `M` any number of transitions, `H W C` pixels, `P` past
transitions, `d` the two numbers of a displacement, `A` latent actions, `D` features.

If the camera follows the agent, the whole picture moves with the agent. The past determines most of that motion: the
course of a jump, once begun, follows from its speed. Genie's objective (section 2.1) spends codes on this motion all
the same. Here the next displacement is measured (`genie.models.registration`) and predicted from the past. The codes
describe the surprise: the measured minus the expected displacement, in units of its predicted standard deviation.

The codes start as clusters of the surprise (of the EMA quantizer) and are refined by maximum likelihood. The refined
model is a mixture density network (Bishop 1994) with one component per action. A gate computes the mixture weights from
a second view of the same transition, the sprite before and after it; the means may depend on the past. The inferred
action is the one with the largest posterior.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from genie.models.config import config_from
from genie.models.histogram import histogram
from genie.models.measured_size import at_measured_size
from genie.models.quantizer import VectorQuantizer, code_statistics
from genie.models.registration import MAX_SHIFT, Box, displacements, past_displacements

if TYPE_CHECKING:
    from genie.core.params import SurpriseLamParams

PIXELS = 8.0  # the networks express displacements in units of this many pixels
MIN_DEVIATION, MAX_DEVIATION = 0.1, 50.0  # pixels; errors below registration's resolution are no surprise
MAX_SURPRISE = 3.0  # deviations; surprises are clipped to this before clustering
RARE = 0.3  # of a uniform share, below which a cluster is re-drawn: outliers are not an action
FREEDOM = 4.0  # degrees of freedom of Student's t: heavy tails, since registration sometimes fails completely
# Log-density of a failed registration: 1% of displacements, uniform over all shifts. Otherwise failures occupy a code.
LOG_FAILED = math.log(0.01 / (2 * MAX_SHIFT) ** 2)
SURROUNDINGS, COARSE = 20, 2  # pixels on each side of the sprite's centre, pooling size: show where it stands and lands


@dataclass(frozen=True)
class SurpriseLamConfig:
    """Configuration of the latent action model; `params.yaml` documents the first five fields.

    Attributes:
        sprite: position of the agent in every frame, as the fields of a `Box`.
        frame_size: rows and columns of a frame at the measured size.
    """

    num_actions: int
    history: int
    width: int
    ema_decay: float
    expectation_steps: int
    sprite: tuple[int, int, int, int]
    frame_size: tuple[int, int]


class SurpriseLam(nn.Module):
    """Latent action model that infers actions from frames.

    Args:
        config: the model's configuration.
    """

    kind, stage = "surprise_lam", "train_lam"
    config_class = SurpriseLamConfig
    fingerprint: str  # set by `load_model`
    clusters: torch.Tensor
    steps_trained: torch.Tensor

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
        """Computes the negative log-likelihood, in nats, of the next displacements, and metrics.

        For the first `expectation_steps` of training, the likelihood is that of the expectation alone, while clusters
        form. After that it is the likelihood of the mixture, which starts from those clusters.

        Args:
            batch: transitions as returned by `observe`.

        Returns:
            The loss, and metrics: `cross_entropy` (the loss, in nats), `information` (bits that the inferred action
            gives about the next displacement, beyond the past), and those of `code_statistics`.
        """
        with torch.autocast(batch["next_Md"].device.type, enabled=False):  # bfloat16 loses 0.1 pixels at 30
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
        """Infers latent actions `(B, T-1)` int64 in [0, A) from uint8 frames `(B, T, H, W, 3)`; see `judge`."""
        return self.judge(frames_BTHWC)[0]

    @torch.no_grad()
    def judge(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Infers latent actions, and the likelihood of the measured motion under each action.

        Both depend on a transition's two frames and the `history - 1` frames before them. The motion before the first
        frame is taken as zero.

        Args:
            frames_BTHWC: uint8 frames, T >= 2.

        Returns:
            Latent actions `(B, T-1)` int64 in [0, A) with the largest posterior; and `(B, T-1, A)`, the log-density of
            the displacement (in pixels of the measured size) given the past and each action, in nats.

        Raises:
            FrameSizeError: the frames have an unsupported size.
        """
        batch = {name: part.flatten(0, 1) for name, part in self.observe(frames_BTHWC).items()}
        with torch.autocast(frames_BTHWC.device.type, enabled=False):
            *_, likelihood_MA, posterior_MA = self._weigh(batch)
        shape = (len(frames_BTHWC), -1)
        return posterior_MA.argmax(-1).unflatten(0, shape), likelihood_MA.unflatten(0, shape)

    @torch.no_grad()
    def observe(self, frames_BTHWC: torch.Tensor) -> dict[str, torch.Tensor]:
        """Computes the model's inputs for each transition.

        Args:
            frames_BTHWC: uint8 frames, T >= 2.

        Returns:
            `next_Md`, the displacement of the transition, in pixels of the measured size; `past_MPd`, the displacements
            before it, the latest first, 0 before the first frame; `surroundings_MHW`, uint8 gray pixels before it; and
            `sprites_M2HWC`, the uint8 sprites before and after it. Each is `(B, S, ...)`.

        Raises:
            FrameSizeError: the frames have an unsupported size.
        """
        frames_BTHWC, moved_BSd = self._follow(at_measured_size(frames_BTHWC))
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
        """Returns the box of the agent, in pixels of the measured size, in each of the uint8 frames."""
        return [self.sprite] * len(frames_MHWC)

    def _follow(self, frames_BTHWC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns frames with the sprite at `self.sprite`, and the displacement of the picture in each transition."""
        return frames_BTHWC, displacements(frames_BTHWC, ignored=self.sprite)

    def _weigh(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns surprise, log-deviation, log-likelihood and unnormalised log-posterior of each action.

        The first two are those of `_surprise`, the third that of `_likelihood`. The posterior adds the gate's
        log-weights to the log-likelihood.
        """
        past_MD = self._past(batch)
        surprise_Md, log_deviation_Md = self._surprise(batch, past_MD)
        likelihood_MA = self._likelihood(past_MD, surprise_Md, log_deviation_Md)
        posterior_MA = likelihood_MA + self.gate(self._view(batch)).log_softmax(-1)
        return surprise_Md, log_deviation_Md, likelihood_MA, posterior_MA

    def _past(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Features known before the transition: `(M, D)`."""
        parts = batch["past_MPd"] / PIXELS, _pixels(batch["surroundings_MHW"]), _pixels(batch["sprites_M2HWC"][:, 0])
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def _view(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Features of the second view of the transition, which exclude its displacement: `(M, D)`."""
        parts = _pixels(batch["sprites_M2HWC"]), batch["past_MPd"][:, :2] / PIXELS
        return torch.cat([part.flatten(1) for part in parts], dim=1)

    def _surprise(self, batch: dict[str, torch.Tensor], past_MD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Surprise of the next displacement, in standard deviations, and their logarithm: `(M, 2)` each."""
        mean_Md, log_deviation_Md = self.expectation(past_MD).chunk(2, dim=-1)
        log_deviation_Md = log_deviation_Md.clamp(math.log(MIN_DEVIATION), math.log(MAX_DEVIATION))
        return (batch["next_Md"] - mean_Md * PIXELS) * torch.exp(-log_deviation_Md), log_deviation_Md

    def _likelihood(
        self, past_MD: torch.Tensor, surprise_Md: torch.Tensor, log_deviation_Md: torch.Tensor
    ) -> torch.Tensor:
        """Log-density of the next displacement given the past and each action: `(M, A)`."""
        shift_MAd, spread_Md = self.shift(past_MD).split([2 * self.num_actions, 2], dim=-1)
        log_spread_Md = self._log_spread(spread_Md)
        means_MAd = self.clusters + self.offset + shift_MAd.unflatten(-1, (-1, 2))
        distance_MA = ((surprise_Md[:, None] - means_MAd) * torch.exp(-log_spread_Md)[:, None]).square().sum(-1)
        # Student's t in two dimensions; its constant equals the normal distribution's for any degrees of freedom.
        log_scale_M1 = (log_deviation_Md + log_spread_Md).sum(-1, keepdim=True) + math.log(2 * math.pi)
        log_density_MA = -(FREEDOM / 2 + 1) * torch.log1p(distance_MA / FREEDOM) - log_scale_M1
        return torch.logaddexp(log_density_MA, torch.full_like(log_scale_M1, LOG_FAILED))

    def _log_spread(self, spread_Md: torch.Tensor) -> torch.Tensor:
        """Log-deviation of the mixture's components, in standard deviations, from the part that the past tells."""
        return self.log_spread + spread_Md

    @torch.no_grad()
    def _follow_clusters(self) -> None:
        """Counts the step; copies the quantizer's clusters to the mixture's means during `expectation_steps`.

        The means are this buffer plus a learnt offset, because a sharded parameter could not be set here.
        """
        self.steps_trained += 1
        is_refined = self.steps_trained > self.config.expectation_steps
        self.clusters.copy_(torch.where(is_refined, self.clusters, self.quantizer.codebook))


def _mlp(num_inputs: int, width: int, num_outputs: int, *, born_zero: bool = False) -> nn.Sequential:
    layers = nn.Sequential(
        nn.Linear(num_inputs, width), nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, num_outputs)
    )
    if born_zero:
        for parameter in layers[-1].parameters():
            nn.init.zeros_(parameter)
    return layers


def _pixels(values: torch.Tensor) -> torch.Tensor:
    """Scales uint8 values to [-1, 1]."""
    return values.float() / 127.5 - 1


def information(likelihood_MA: torch.Tensor, codes_M: torch.Tensor) -> torch.Tensor:
    """Computes the bits, a scalar, that latent actions give about the next displacement beyond the past.

    This is the mean log-ratio of the displacement's density given past and action to its density given the past alone.
    The latter weights actions by their shares in `codes_M`. The value is at most log2 A, 0 if all actions predict the
    same, and negative if their predictions are wrong.

    Args:
        likelihood_MA: log-densities as returned by `SurpriseLam.judge`.
        codes_M: the latent actions.
    """
    share_A = histogram(codes_M, likelihood_MA.shape[-1]) / len(codes_M)
    without_M = (likelihood_MA + share_A.log()).logsumexp(-1)
    with_M = likelihood_MA.gather(-1, codes_M.unsqueeze(-1)).squeeze(-1)
    return (with_M - without_M).mean() / math.log(2)


def build_surprise_lam(params: "SurpriseLamParams", sprite: Box, frame_size: tuple[int, int]) -> SurpriseLam:
    """Builds a latent action model, initialised from `params.seed`, for frames with the agent at `sprite`."""
    torch.manual_seed(params.seed)
    return SurpriseLam(config_from(SurpriseLamConfig, params, sprite=tuple(sprite), frame_size=tuple(frame_size)))

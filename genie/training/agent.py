"""Builds the latent action model of kind `surprise`, after locating the agent in the frames without labels."""

import sys

import torch

from genie.core.params import SurpriseLamParams
from genie.data.episodes import EpisodeStore
from genie.distributed.processes import rank
from genie.models.surprise_lam import SurpriseLam, build_surprise_lam
from genie.models.tracking_lam import build_tracking_lam
from genie.training.agent_colors import AgentError, find_agent
from genie.training.sprite import SpriteError, find_sprite, measure_staying


def build_for_agent(
    params: SurpriseLamParams, store: EpisodeStore, frame_size: tuple[int, int], device: torch.device | str = "cpu"
) -> SurpriseLam:
    """Builds the model on the device, initialised from `params.seed`: a `TrackingLam` if no camera follows the agent.

    Raises:
        WindowError: no episode is long enough to look for an agent in.
        SpriteError: no camera follows an agent, and none can be tracked; the message names the cause and the fix.
    """
    try:
        return build_surprise_lam(params, find_sprite(measure_staying(store, device)), frame_size).to(device)
    except SpriteError as fault:
        cause = fault
    if rank() == 0:
        print(f"{cause}; looking for an agent that moves by itself, by its colours", file=sys.stderr)
    try:
        return build_tracking_lam(params, find_agent(store, device), frame_size).to(device)
    except AgentError as fault:
        # A policy that leans right keeps the agent at such a picture's border, where actions have no visible effect.
        instead = "set lam.kind to pixels and collect.policy to uniform"
        raise SpriteError(f"{cause}, and no agent moves by itself: {fault}; {instead}") from None

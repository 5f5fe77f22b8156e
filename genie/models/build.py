"""Fresh models from parameters: what a config shares with `params.yaml` is read from there, by name."""

from dataclasses import fields

import torch

from genie.models.dynamics import Dynamics, DynamicsConfig
from genie.models.lam import LamConfig, LatentActionModel
from genie.models.tokenizer import Tokenizer, TokenizerConfig
from genie.params import DynamicsParams, LamParams, TokenizerParams


def build_tokenizer(params: TokenizerParams) -> Tokenizer:
    """A tokenizer with the weights that `params.seed` draws."""
    torch.manual_seed(params.seed)
    return Tokenizer(TokenizerConfig(**_shared(TokenizerConfig, params)))


def build_lam(params: LamParams) -> LatentActionModel:
    """A latent action model with the weights that `params.seed` draws."""
    torch.manual_seed(params.seed)
    return LatentActionModel(LamConfig(**_shared(LamConfig, params)))


def build_dynamics(
    params: DynamicsParams,
    num_codes: int,
    grid: tuple[int, int],
    num_actions: int,
    tokenizer_fingerprint: str = "",
    lam_fingerprint: str = "",
) -> Dynamics:
    """A dynamics with the weights that `params.seed` draws.

    Args:
        params: its size and conditioning.
        num_codes, grid: of the tokenizer whose tokens it will predict.
        num_actions: A of the LAM whose actions it will obey.
        tokenizer_fingerprint, lam_fingerprint: which ones they are.
    """
    torch.manual_seed(params.seed)
    config = DynamicsConfig(
        num_codes=num_codes,
        grid=grid,
        num_actions=num_actions,
        tokenizer_fingerprint=tokenizer_fingerprint,
        lam_fingerprint=lam_fingerprint,
        **_shared(DynamicsConfig, params),
    )
    return Dynamics(config)


def _shared(config_class: type, params) -> dict:
    values = params.model_dump(include={field.name for field in fields(config_class)})
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

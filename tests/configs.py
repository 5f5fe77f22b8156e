"""Small model configs for tests that name only what matters to them."""

from genie.models.dynamics import DynamicsConfig
from genie.models.tokenizer import TokenizerConfig

TOKENIZER = {
    "quantizer": "fsq",
    "fsq_levels": (8, 5, 5, 5),
    "num_codes": 1024,
    "code_dim": 32,
    "commitment_weight": 0.25,
    "ema_decay": 0.99,
    "width": 16,
    "num_blocks": 1,
    "image_size": 64,
}
DYNAMICS = {
    "num_codes": 1000,
    "grid": (16, 16),
    "num_actions": 8,
    "context_frames": 4,
    "action_injection": "adaln",
    "motion_compensation": False,
    "context_noise": 0.02,
    "min_mask_rate": 0.5,
    "full_mask_share": 0.5,
    "patch_size": 2,
    "width": 16,
    "num_layers": 1,
    "num_heads": 2,
}


def tokenizer_config(**changes) -> TokenizerConfig:
    """Returns a tokenizer's config with these values in place of the usual ones."""
    return TokenizerConfig(**TOKENIZER | changes)


def dynamics_config(**changes) -> DynamicsConfig:
    """Returns a dynamics config with these values in place of the usual ones."""
    return DynamicsConfig(**DYNAMICS | changes)

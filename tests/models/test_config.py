import dataclasses

import pytest
import torch

from genie.core.frames import FRAME_SHAPE
from genie.core.params import TrainingParams
from genie.models.dynamics import build_dynamics
from genie.models.pixel_lam import build_pixel_lam
from genie.models.surprise_lam import build_surprise_lam
from genie.models.tokenizer import build_tokenizer
from genie.training.costs import A_SPRITE

# Params of training, data or gate, which the model does not need.
NOT_OF_THE_MODEL = {
    "tokenizer": set(),
    "surprise": {"gate_min_perplexity", "gate_min_information"},
    "pixels": {"window", "gate_min_perplexity", "gate_min_gain_db"},
    "dynamics": {"window", "actions"},
}
# Alternative values of params whose type or range a generic change would violate.
OTHERS = {
    "quantizer": ("vq", "fsq"),
    "fsq_levels": ([3, 4], [5, 5]),
    "action_injection": ("prepend", "add"),
    "num_heads": (1, 2),
    "patch_size": (4, 2),
}

# What the dynamics is given about the models before it.
KNOWN = {
    "num_codes": 64,
    "grid": (16, 16),
    "num_actions": 5,
    "tokenizer_fingerprint": "t",
    "lam_fingerprint": "l",
}
# Config fields that are not in the section.
OWN = {
    "tokenizer": {"image_size"},
    "surprise": {"sprite", "frame_size"},
    "pixels": set(),
    "dynamics": set(KNOWN),
}


@pytest.fixture(params=list(NOT_OF_THE_MODEL))
def model(request):
    """A model's name; that of a latent action model is its kind."""
    return request.param


@pytest.fixture
def section(model, tiny_params):
    if model in ("surprise", "pixels"):
        return tiny_params.lam.model_copy(update={"kind": model}).of_kind()
    return getattr(tiny_params, model)


def build(model, section):
    if model == "tokenizer":
        return build_tokenizer(section, 64)
    if model == "surprise":
        return build_surprise_lam(section, A_SPRITE, FRAME_SHAPE[:2])
    return build_pixel_lam(section) if model == "pixels" else build_dynamics(section, **KNOWN)


def other_value(name, value):
    others = OTHERS.get(name, (value / 2 if isinstance(value, float) else value * 2,))
    return next(other for other in others if other != value)


def test_every_param_reaches_its_config(model, section):
    names = set(type(section).model_fields) - set(TrainingParams.model_fields) - NOT_OF_THE_MODEL[model]
    for name in names:
        value = other_value(name, getattr(section, name))
        in_config = getattr(build(model, section.model_copy(update={name: value})).config, name)
        assert in_config == (tuple(value) if isinstance(value, list) else value), name


def test_what_params_do_not_say_is_handed_over(model, section):
    """Every field of a config comes from its section, or is among the few that other models or the data decide."""
    config = build(model, section).config
    own = {field.name for field in dataclasses.fields(config)} - set(type(section).model_fields)
    assert own == OWN[model]
    assert all(getattr(config, name) == KNOWN[name] for name in OWN["dynamics"] if model == "dynamics")


def test_a_seed_decides_the_weights(model, section):
    other = section.model_copy(update={"seed": section.seed + 1})
    first, again, another = (
        torch.cat([p.flatten() for p in build(model, params).parameters()]) for params in (section, section, other)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, another)

import dataclasses

import pytest
import torch

from genie.models.dynamics import build_dynamics
from genie.models.lam import build_lam
from genie.models.tokenizer import build_tokenizer
from genie.params import TrainingParams

# What a section says of its training, its data or its gate, and the model does not need.
NOT_OF_THE_MODEL = {
    "tokenizer": set(),
    "lam": {"window", "gate_min_perplexity", "gate_min_gain_db", "probe_steps", "probe_seed"},
    "dynamics": {"window", "actions"},
}
# Other values for each param whose type or range a generic change would break.
OTHERS = {
    "quantizer": ("vq", "fsq"),
    "fsq_levels": ([3, 4], [5, 5]),
    "action_injection": ("prepend", "add"),
    "num_heads": (1, 2),
    "patch_size": (4, 2),
}

# What the dynamics learns of the models before it.
KNOWN = {
    "num_codes": 64,
    "grid": (16, 16),
    "num_actions": 5,
    "tokenizer_fingerprint": "t",
    "lam_fingerprint": "l",
}
# What a config holds that its section does not say.
OWN = {"tokenizer": {"image_size"}, "lam": set(), "dynamics": set(KNOWN)}


def build(model, params):
    section = getattr(params, model)
    if model == "tokenizer":
        return build_tokenizer(section)
    return build_lam(section) if model == "lam" else build_dynamics(section, **KNOWN)


def other_value(name, value):
    others = OTHERS.get(name, (value / 2 if isinstance(value, float) else value * 2,))
    return next(other for other in others if other != value)


@pytest.mark.parametrize("model", list(NOT_OF_THE_MODEL))
def test_every_param_reaches_its_config(model, tiny_params):
    section = getattr(tiny_params, model)
    names = set(type(section).model_fields) - set(TrainingParams.model_fields) - NOT_OF_THE_MODEL[model]
    for name in names:
        value = other_value(name, getattr(section, name))
        changed = tiny_params.model_copy(update={model: section.model_copy(update={name: value})})
        in_config = getattr(build(model, changed).config, name)
        assert in_config == (tuple(value) if isinstance(value, list) else value), name


@pytest.mark.parametrize("model", list(NOT_OF_THE_MODEL))
def test_what_params_do_not_say_is_handed_over(model, tiny_params):
    """Every field of a config comes from its section, or is among the few that other models decide."""
    config = build(model, tiny_params).config
    own = {field.name for field in dataclasses.fields(config)} - set(type(getattr(tiny_params, model)).model_fields)
    assert own == OWN[model]
    assert all(getattr(config, name) == KNOWN[name] for name in OWN["dynamics"] if model == "dynamics")


@pytest.mark.parametrize("model", list(NOT_OF_THE_MODEL))
def test_a_seed_decides_the_weights(model, tiny_params):
    section = getattr(tiny_params, model)
    other = tiny_params.model_copy(update={model: section.model_copy(update={"seed": section.seed + 1})})
    first, again, another = (
        torch.cat([p.flatten() for p in build(model, p_).parameters()]) for p_ in (tiny_params, tiny_params, other)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, another)

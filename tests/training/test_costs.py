import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from genie.models.motion_predictor import HIDDEN
from genie.models.recent_motion import REMEMBERED
from genie.training.costs import blank_batch, build, count_step, si, step_costs, training_params
from tests.frames import LARGER_SIZES

MODELS = (
    "tokenizer",
    "probe",
    "surprise",
    "pixels",
    "motion",
    "steering",
    "dynamics",
)  # latent action models by kind
FLOAT = 4  # bytes


class Hand(nn.Module):
    """A model whose costs can be counted by hand: a convolution, then a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 5, 3, padding=1), nn.Linear(5 * 8 * 8, 7)

    def forward(self, x):
        return self.linear(self.conv(x).flatten(1)).square().mean(), {}


def newton_schulz(shape):
    """Returns the FLOPs that orthogonalise one weight."""
    small, large = sorted((shape[0], math.prod(shape[1:])))
    if large >= 2 * small:  # by the Gram matrix: computed once, four of five iterations of four products, applied once
        return 2 * (2 * small * small * large + (1 + 4 * 4) * small**3)
    return 5 * 2 * (small * small * large + small**3 + small * small * large)


def of_batch(params, model, size):
    """Returns the same params with another batch size."""
    section = getattr(params, model)
    if model == "lam":
        own = getattr(section, section.kind).model_copy(update={"batch_size": size})
        return params.model_copy(update={"lam": section.model_copy(update={section.kind: own})})
    return params.model_copy(update={model: section.model_copy(update={"batch_size": size})})


def test_a_model_told_by_hand(tiny_params):
    model, batch = Hand(), torch.zeros(2, 3, 8, 8)
    costs = count_step(model, batch, tiny_params.tokenizer, bf16=False)
    conv, linear = 2 * 2 * 8 * 8 * 5 * 3 * 9, 2 * 2 * 5 * 8 * 8 * 7
    assert costs.model_flops == 2 * conv + 3 * linear, "nobody asks for the gradient of the input"
    assert costs.optimizer_flops == sum(newton_schulz(layer.weight.shape) for layer in (model.conv, model.linear))
    assert costs.parameters == 5 * 3 * 9 + 5 + 5 * 8 * 8 * 7 + 7
    assert costs.weight_bytes == costs.gradient_bytes == FLOAT * costs.parameters
    matrices, others = FLOAT * (5 * 3 * 9 + 5 * 8 * 8 * 7), FLOAT * (5 + 7)
    assert costs.optimizer_bytes == matrices + 2 * others + 2 * FLOAT, "Muon one mean; AdamW two, and a step count each"
    assert costs.activation_bytes == FLOAT * 2 * (3 * 8 * 8 + 5 * 8 * 8 + 7), "what each of three operations was given"


def test_bf16_keeps_half_and_copies_of_weights(tiny_params):
    costs = count_step(Hand(), torch.zeros(2, 3, 8, 8), tiny_params.tokenizer, bf16=True)
    assert costs.weight_bytes > FLOAT * costs.parameters
    assert costs.activation_bytes == FLOAT // 2 * 2 * (3 * 8 * 8 + 5 * 8 * 8 + 7)


def of_dynamics(params, **changes):
    return params.model_copy(update={"dynamics": params.dynamics.model_copy(update=changes)})


def test_the_dynamics_told_by_formula(tiny_params):
    tiny_params = of_dynamics(tiny_params, motion_compensation=False)
    settings = tiny_params.dynamics
    costs, model = step_costs("dynamics", tiny_params), build("dynamics", tiny_params)
    width, size, steps = settings.width, settings.patch_size, settings.window - 1
    token_width, num_codes, places = width // size, tiny_params.tokenizer.num_codes, 256 // size**2
    frames = 2 * steps  # clean and masked ones
    patch = token_width * size**2
    block = 2 * 4 * width**2 + 8 * width**2 + 2 * width * (places + frames)
    entered = (frames + steps + 1) * places * patch * width  # the frames, and the distinct frames before them
    products = entered + frames * places * settings.num_layers * block
    products += steps * places * width * patch + steps * 256 * token_width * num_codes
    assert costs.model_flops == 3 * 2 * settings.batch_size * products
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert costs.optimizer_flops == sum(newton_schulz(layer.weight.shape) for layer in linear)


def test_motion_compensation_told_by_formula(tiny_params):
    settings = tiny_params.dynamics
    with_it, without = (of_dynamics(tiny_params, motion_compensation=on) for on in (True, False))
    steps, places, width = settings.window - 1, 256 // settings.patch_size**2, settings.width
    patch = width * settings.patch_size
    learnt = (steps + 1) * places * patch * width
    of_what_is_given = (steps + 1) * 2 * width  # needs no gradient
    predicted = steps * HIDDEN * (2 * REMEMBERED + 32 * 32 + HIDDEN + 2)  # nor does this, nor its weights
    tokenizer = build("tokenizer", tiny_params).eval()
    with FlopCounterMode(display=False) as of_tokenizer:
        frames_BHWC = tokenizer.decode(torch.zeros(settings.window, 256, dtype=torch.int64))
        tokenizer.encode(frames_BHWC[:steps])
    products = 3 * 2 * learnt + 2 * 2 * of_what_is_given + 2 * predicted + of_tokenizer.get_total_flops()
    flops = [step_costs("dynamics", params).model_flops for params in (with_it, without)]
    assert flops[0] - flops[1] == settings.batch_size * products


@pytest.fixture(params=MODELS)
def model_and_params(request, tiny_params):
    """A model's name, and params with its kind of latent action model."""
    if request.param in ("surprise", "pixels"):
        return "lam", tiny_params.model_copy(update={"lam": tiny_params.lam.model_copy(update={"kind": request.param})})
    return request.param, tiny_params


@pytest.mark.parametrize("bf16", [False, True])
def test_tensors_without_values_cost_what_real_ones_do(model_and_params, bf16):
    model, params = model_and_params
    network = build(model, params)
    real = count_step(network, blank_batch(model, params), training_params(model, params), bf16)
    fake = step_costs(model, params, bf16)
    # In bf16, torch's fake tensors keep the statistics of norms in another precision than its CPU kernels.
    assert fake.activation_bytes == pytest.approx(real.activation_bytes, rel=0.005 if bf16 else 0)
    assert replace(fake, activation_bytes=0) == replace(real, activation_bytes=0)
    assert real.parameters == sum(parameter.numel() for parameter in network.parameters())


def test_costs_are_linear_in_the_batch(model_and_params):
    model, params = model_and_params
    two, four, six = (step_costs(model, of_batch(params, model, size)) for size in (2, 4, 6))
    assert (two.samples, four.samples, six.samples) == (2, 4, 6)
    assert six.frames == 3 * two.frames
    assert (four.model_flops, six.model_flops) == (2 * two.model_flops, 3 * two.model_flops)
    growth = [more.activation_bytes - less.activation_bytes for less, more in pairwise([two, four, six])]
    assert growth[0] == growth[1]
    assert growth[0] <= two.activation_bytes < 1.1 * growth[0], "but for what no batch changes"
    for name in ("optimizer_flops", "weight_bytes", "gradient_bytes", "optimizer_bytes"):
        assert getattr(two, name) == getattr(six, name)


def test_counting_leaves_the_random_state_alone(tiny_params):
    before = torch.get_rng_state()
    step_costs("tokenizer", tiny_params)
    assert torch.equal(torch.get_rng_state(), before)


def test_true_actions_are_counted_too(tiny_params):
    costs = step_costs("dynamics", of_dynamics(tiny_params, actions=True))
    lam = tiny_params.lam.model_copy(update={"num_actions": 9})
    tiny_params = tiny_params.model_copy(update={"lam": lam})
    width = tiny_params.dynamics.width + HIDDEN
    assert step_costs("dynamics", tiny_params).parameters - costs.parameters == (lam.num_actions - 6) * width


def test_fsq_is_counted_too(tiny_params):
    fsq = tiny_params.tokenizer.model_copy(update={"quantizer": "fsq"})
    costs = step_costs("tokenizer", tiny_params.model_copy(update={"tokenizer": fsq}))
    assert 0 < costs.model_flops < step_costs("tokenizer", tiny_params).model_flops, "no distances to codes"


def test_a_batch_too_small_to_train_on_is_a_fault(tiny_params):
    pixels = tiny_params.lam.pixels
    pixels = pixels.model_copy(update={"batch_size": 1, "window": pixels.history + 1})
    lam = tiny_params.lam.model_copy(update={"kind": "pixels", "pixels": pixels})
    with pytest.raises(ValueError, match="more than 1 value"):
        step_costs("lam", tiny_params.model_copy(update={"lam": lam}))


def test_numbers_have_three_digits():
    shown = [si(value) for value in (0, 0.5, 7, 999.4, 999.6, 1.2345e6, 1e21, 1e24)]
    assert shown == ["0", "0.5", "7", "999", "1 k", "1.23 M", "1,000 E", "1,000,000 E"]
    assert si(1.25e9, "B") == "1.25 GB"
    assert si(12, "B") == "12 B"


@pytest.mark.slow
def test_larger_frames_cost_more_where_they_are_seen_whole(tiny_params):
    size = max(LARGER_SIZES)
    collect = tiny_params.collect.model_copy(update={"source": "films", "frame_size": size})
    larger = tiny_params.model_copy(update={"collect": collect})
    assert blank_batch("tokenizer", larger).shape[2:] == (size, size, 3)
    assert step_costs("tokenizer", larger).parameters > step_costs("tokenizer", tiny_params).parameters
    for name in ("probe", "lam", "motion"):
        assert step_costs(name, larger) == step_costs(name, tiny_params), "all see frames at the measured size"
    costs, small = step_costs("dynamics", larger), step_costs("dynamics", tiny_params)
    assert costs.parameters == small.parameters
    assert costs.activation_bytes == small.activation_bytes

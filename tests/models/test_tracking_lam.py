"""The agent before a still camera: its displacement, where it is known, is what the codes are of."""

import pytest
import torch

from genie.core.params import Params
from genie.models.backprojection import NUM_COLORS, colors_of
from genie.models.tracking_lam import FARTHEST, Agent, TrackingLam, build_tracking_lam

COLOR, SIDE = (250, 150, 20), 5  # of the agent
STEP = torch.tensor([3, -2])  # pixels to the right and downwards


@pytest.fixture(scope="module")
def background_HWC() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(90, (64, 64, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture
def lam(tiny_params: Params, background_HWC) -> TrackingLam:
    likeness_K = torch.zeros(NUM_COLORS)
    likeness_K[colors_of(torch.tensor(COLOR, dtype=torch.uint8).view(1, 1, 1, 3))] = 1
    agent = Agent(likeness_K, min_mass=SIDE**2 / 2, background_HWC=background_HWC)
    return build_tracking_lam(tiny_params.lam.of_kind(), agent, (64, 64))


@pytest.fixture
def film(background_HWC):
    """Makes a clip `(1, T, 64, 64, 3)` of an agent at positions from the left and the top, or nowhere."""

    def make(places: list) -> torch.Tensor:
        frames_THWC = background_HWC.repeat(len(places), 1, 1, 1)
        for frame_HWC, place in zip(frames_THWC, places, strict=True):
            if place is not None:
                left, top = (int(x) - SIDE // 2 for x in place)
                frame_HWC[top : top + SIDE, left : left + SIDE] = torch.tensor(COLOR, dtype=torch.uint8)
        return frames_THWC.unsqueeze(0)

    return make


def test_the_picture_moves_against_the_agent(lam, film):
    places = [torch.tensor([20, 40]) + t * STEP for t in range(5)]
    observed = lam.observe(film(places))
    assert torch.equal(observed["next_Md"][0], -STEP.float().expand(4, 2))
    sprites_S2HWC = observed["sprites_M2HWC"][0]
    inner = slice((sprites_S2HWC.shape[2] - SIDE) // 2, (sprites_S2HWC.shape[2] + SIDE) // 2)
    assert (sprites_S2HWC[:, :, inner, inner] == torch.tensor(COLOR)).all(), "the agent is in the sprite's centre"
    boxes = lam.sprites(film(places)[0])
    assert [(box.left + box.width // 2, box.top + box.height // 2) for box in boxes] == [
        tuple(p.tolist()) for p in places
    ]


def test_an_agent_that_is_lost_does_not_move(lam, film):
    here, there = torch.tensor([20, 40]), torch.tensor([20, 40]) + STEP
    frames_BTHWC = film([here, None, there, there + STEP])
    assert lam.places(frames_BTHWC[0])[1].tolist() == [True, False, True, True]
    moved_Sd = lam.observe(frames_BTHWC)["next_Md"][0]
    assert torch.equal(moved_Sd, torch.stack([torch.zeros(2), torch.zeros(2), -STEP.float()]))


@pytest.mark.parametrize(("beyond", "is_known"), [(0, True), (1, False)])
def test_a_jump_that_is_too_far_is_no_motion(beyond, is_known, lam, film):
    """Another thing was taken for the agent, or it starts anew elsewhere."""
    jump = torch.tensor([FARTHEST + beyond, 0])
    here = torch.tensor([20, 40])
    moved_Sd = lam.observe(film([here, here + jump, here + jump + STEP]))["next_Md"][0]
    assert torch.equal(moved_Sd, torch.stack([-jump * is_known, -STEP.float()]))


def test_what_equals_the_background_is_not_the_agent(lam, film, background_HWC):
    """Even if it has the agent's colours and the agent is elsewhere."""
    background_HWC = background_HWC.clone()
    background_HWC[50:60, 50:60] = torch.tensor(COLOR, dtype=torch.uint8)
    frames_BTHWC = film([torch.tensor([20, 40])])
    frames_BTHWC[:, :, 50:60, 50:60] = torch.tensor(COLOR, dtype=torch.uint8)
    assert lam.places(frames_BTHWC[0])[0].min() > 48, "there is more of those colours"
    lam.background_HWC.copy_(background_HWC)
    assert lam.places(frames_BTHWC[0])[0].tolist() == [[20, 40]]

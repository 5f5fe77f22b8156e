import pytest
import torch

from genie.models.backprojection import LEVELS, NUM_COLORS, SIDE, colors_of, locate, windows_at

HALF = SIDE // 2


def test_a_colour_is_its_channels_rounded_down():
    frames_MHWC = torch.randint(256, (3, 5, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    colors_MHW = colors_of(frames_MHWC)
    for m, y, x in torch.cartesian_prod(*(torch.arange(size) for size in colors_MHW.shape)).tolist():
        red, green, blue = (int(value) * LEVELS // 256 for value in frames_MHWC[m, y, x])
        assert colors_MHW[m, y, x] == red * LEVELS**2 + green * LEVELS + blue
    assert int(colors_of(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8))) == NUM_COLORS - 1


def test_windows_are_those_of_the_padded_picture():
    generator = torch.Generator().manual_seed(0)
    frames_MHWC = torch.randint(256, (6, 9, 12, 3), dtype=torch.uint8, generator=generator)
    middle_Md = torch.stack([torch.randint(high, (6,), generator=generator) for high in (12, 9)], dim=1)
    for side in (1, 5, 8):
        cut = windows_at(frames_MHWC, middle_Md, side)
        padded = torch.nn.functional.pad(frames_MHWC, (0, 0, *[side] * 4))
        for m, (x, y) in enumerate(middle_Md.tolist()):
            first_x, first_y = x + side - side // 2, y + side - side // 2
            assert torch.equal(cut[m], padded[m, first_y : first_y + side, first_x : first_x + side])


def test_the_place_is_the_centre_of_mass_of_the_window_that_holds_most():
    likeness_MHW = torch.rand(8, 20, 24, generator=torch.Generator().manual_seed(0))
    places_Md, mass_M = locate(likeness_MHW)
    padded_MHW = torch.nn.functional.pad(likeness_MHW, [HALF] * 4)
    for m in range(8):
        windows = {
            (x, y): padded_MHW[m, y : y + SIDE, x : x + SIDE] for y in range(20) for x in range(24)
        }  # the window centred at (x, y)
        (x, y), window = max(windows.items(), key=lambda item: float(item[1].sum()))
        assert float(mass_M[m]) == pytest.approx(float(window.sum()), rel=1e-5)
        offsets = torch.arange(SIDE) - HALF
        pulls = torch.stack([(window.sum(axis) * offsets).sum() for axis in (0, 1)])
        expected_d = torch.tensor([x, y]) + pulls / window.sum()
        torch.testing.assert_close(places_Md[m], expected_d, rtol=1e-4, atol=1e-4)


def test_nothing_that_is_like_an_agent_has_no_mass():
    places_Md, mass_M = locate(torch.zeros(2, 16, 16))
    assert torch.isfinite(places_Md).all()
    assert (mass_M == 0).all()

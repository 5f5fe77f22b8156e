import pytest
import torch

from genie.models.measured_size import FrameSizeError, at_measured_size
from tests.frames import LARGER_SIZES, enlarged


@pytest.fixture
def frames_BTHWC(coinrun):
    return torch.from_numpy(coinrun["val"].read(0, 6)).unflatten(0, (2, 3))


def test_frames_of_the_measured_size_stay_as_they_are(frames_BTHWC):
    assert at_measured_size(frames_BTHWC) is frames_BTHWC


@pytest.mark.parametrize("size", LARGER_SIZES)
def test_each_pixel_is_the_mean_of_its_area(size, frames_BTHWC):
    """Compares with a slow reference, in double precision, of pixels divided into equal parts."""
    large_BTHWC = torch.randint(256, (2, 3, size, size, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    parts = {96: 2, 128: 1}[size]
    divided = large_BTHWC.repeat_interleave(parts, 2).repeat_interleave(parts, 3).double()
    mean = divided.unflatten(2, (64, -1)).unflatten(4, (64, -1)).mean((3, 5))
    measured_BTHWC = at_measured_size(large_BTHWC)
    assert measured_BTHWC.dtype == torch.uint8
    assert torch.equal(measured_BTHWC, (mean + 0.5 + 1e-9).floor().to(torch.uint8))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(at_measured_size(large_BTHWC), measured_BTHWC)


@pytest.mark.parametrize("size", LARGER_SIZES)
def test_an_enlarged_picture_is_measured_as_it_was(size, frames_BTHWC):
    measured_BTHWC = at_measured_size(torch.from_numpy(enlarged(frames_BTHWC.numpy(), size)))
    assert (measured_BTHWC.int() - frames_BTHWC.int()).abs().float().mean() < 3
    white = torch.full((size, size, 3), 255, dtype=torch.uint8)
    assert torch.equal(at_measured_size(white), torch.full((64, 64, 3), 255, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(2, 32, 64, 3), (64, 128, 3), (1, 80, 80, 3), (256, 256, 3)])
def test_another_size_is_refused_in_one_line(shape):
    with pytest.raises(FrameSizeError, match=rf"frames of {shape[-3]}x{shape[-2]} pixels; .* 64, 96, 128") as fault:
        at_measured_size(torch.zeros(shape, dtype=torch.uint8))
    assert "\n" not in str(fault.value)

import pytest
import torch
import torch.nn.functional as F

from genie.models.motion_compensation import MotionCompensation
from genie.models.recent_motion import PIXELS, REMEMBERED, measure
from genie.models.tokenizer import Tokenizer
from tests.configs import tokenizer_config
from tests.frames import LARGER_SIZES, enlarged

ACTIONS, BATCH, FRAMES = 3, 2, 3


@pytest.fixture
def size():
    """Pixels a side of a frame."""
    return 64


@pytest.fixture
def tokenizer(scrambled, size):
    torch.manual_seed(0)
    shape = {"fsq_levels": (4, 3, 3), "width": 16, "num_blocks": 1, "image_size": size}
    return scrambled(Tokenizer(tokenizer_config(quantizer="fsq", **shape)))


@pytest.fixture
def compensation(tokenizer):
    torch.manual_seed(1)
    compensation = MotionCompensation(tokenizer.num_codes, ACTIONS)
    compensation.see_through(tokenizer)
    return compensation


@pytest.fixture
def frames_BTHWC(coinrun, size):
    frames_MHWC = enlarged(coinrun["val"].read(0, BATCH * FRAMES), size)
    return torch.from_numpy(frames_MHWC).unflatten(0, (BATCH, FRAMES))


def foresee(compensation, frames_BTHWC, actions=0):
    moved_Bd = F.pad(measure(frames_BTHWC), (0, 0, REMEMBERED, 0))
    return compensation(frames_BTHWC, moved_Bd, torch.zeros(frames_BTHWC.shape[:2], dtype=torch.int64) + actions)


@pytest.mark.parametrize("size", [64, *LARGER_SIZES])
@pytest.mark.parametrize(("right", "down"), [(0, 0), (8, 0), (-12, 4), (4, -20)])
def test_a_frame_moved_by_whole_tokens(right, down, compensation, tokenizer, frames_BTHWC, size):
    """Where the moved frame is known, tokens equal those of a frame shifted by indexing; elsewhere they are masked.

    Displacements are in pixels of 64x64, whatever the size of the frames.
    """
    with torch.no_grad():
        compensation.predictor.layers[-1].bias.copy_(torch.tensor([right, down]) / PIXELS)
    displacement_BTd, tokens_BTN = foresee(compensation, frames_BTHWC)
    torch.testing.assert_close(displacement_BTd, torch.tensor([right, down]).float().expand(BATCH, FRAMES, 2))
    rows, columns = ((torch.arange(size) - by * size // 64).clamp(0, size - 1) for by in (down, right))
    shifted_MHWC = frames_BTHWC.flatten(0, 1)[:, rows][:, :, columns]
    wanted = tokenizer.encode(shifted_MHWC).view(BATCH, FRAMES, *tokenizer.grid)
    tokens_across, tokens_down = right // 4, down // 4
    for axis, by in ((3, tokens_across), (2, tokens_down)):
        unknown = slice(0, by) if by > 0 else slice(16 + by, 16)
        if by:
            wanted.movedim(axis, 0)[unknown] = compensation.mask_token
    assert torch.equal(tokens_BTN, wanted.flatten(2))


def test_nothing_was_before_the_first_frame(compensation, frames_BTHWC):
    foreseen = foresee(compensation, frames_BTHWC)
    displacement_BTd, tokens_BTN = foreseen.after_nothing(compensation.mask_token)
    assert (tokens_BTN[:, 0] == compensation.mask_token).all()
    assert (displacement_BTd[:, 0] == 0).all()
    assert torch.equal(tokens_BTN[:, 1:], foreseen.tokens_BTN)
    assert torch.equal(displacement_BTd[:, 1:], foreseen.displacement_BTd)


def test_the_tokenizer_is_moved_along_and_neither_trained_nor_saved(compensation, tokenizer):
    of_tokenizer = {id(parameter) for parameter in tokenizer.parameters()}
    assert not of_tokenizer & {id(parameter) for parameter in compensation.parameters()}
    assert not any("tokenizer" in name for name in compensation.state_dict())
    compensation.to(torch.float64)
    assert {parameter.dtype for parameter in tokenizer.parameters()} == {torch.float64}


def test_without_a_tokenizer_it_says_what_is_missing(tokenizer):
    compensation = MotionCompensation(tokenizer.num_codes, ACTIONS)
    with pytest.raises(AssertionError, match="see_through"):
        compensation.decode(torch.zeros(1, 1, 256, dtype=torch.int64))

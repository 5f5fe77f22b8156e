import copy

import pytest
import torch

from genie.models.tokenizer import Tokenizer
from genie.training.step import make_optimizers
from tests.configs import tokenizer_config
from tests.frames import LARGER_SIZES, enlarged


@pytest.fixture(params=["fsq", "vq"])
def tokenizer(request):
    torch.manual_seed(0)
    return Tokenizer(tokenizer_config(quantizer=request.param, num_codes=64, code_dim=4, width=16, num_blocks=1)).eval()


@pytest.fixture
def frames_BHWC(coinrun):
    return torch.from_numpy(coinrun["val"].read(0, 32)[::4])


def test_a_frame_is_256_codes(tokenizer, frames_BHWC):
    tokens_BN = tokenizer.encode(frames_BHWC)
    assert tokens_BN.shape == (8, 256)
    assert tokens_BN.dtype == torch.int64
    assert tokens_BN.min() >= 0
    assert tokens_BN.max() < tokenizer.num_codes
    decoded_BHWC = tokenizer.decode(tokens_BN)
    assert decoded_BHWC.shape == frames_BHWC.shape
    assert decoded_BHWC.dtype == torch.uint8


def test_tokens_depend_on_nothing_but_their_frame(scrambled, tokenizer, frames_BHWC):
    scrambled(tokenizer)
    together = tokenizer.encode(frames_BHWC)
    alone = torch.cat([tokenizer.encode(frame.unsqueeze(0)) for frame in frames_BHWC])
    assert torch.equal(together, alone)
    assert len(together.unique()) > 2, "of constant tokens this would tell nothing"


def test_a_token_is_drawn_at_its_place(scrambled, tokenizer):
    scrambled(tokenizer)
    tokens_BN = torch.full((1, 256), 3)
    changed_BN = tokens_BN.clone()
    changed_BN[0, 16 * 5 + 9] = 40
    difference_HW = (tokenizer.decode(tokens_BN) != tokenizer.decode(changed_BN))[0].any(-1)
    rows, columns = difference_HW.nonzero(as_tuple=True)
    assert difference_HW[4 * 5 : 4 * 6, 4 * 9 : 4 * 10].any()
    assert abs(rows.float().mean() - (4 * 5 + 1.5)) < 4
    assert abs(columns.float().mean() - (4 * 9 + 1.5)) < 4


def test_a_code_looks_like_what_it_paints_among_its_like(scrambled, tokenizer):
    scrambled(tokenizer)
    patches_KP = tokenizer.code_patches()
    assert patches_KP.shape == (tokenizer.num_codes, 4 * 4 * 3)
    for code in (0, 37, tokenizer.num_codes - 1):
        frame_HWC = tokenizer.decode(torch.full((1, 256), code))[0]
        assert torch.equal(patches_KP[code], frame_HWC[32:36, 32:36].flatten() / 255)


@pytest.mark.parametrize("size", LARGER_SIZES)
def test_larger_frames_are_256_codes_of_larger_patches(size, scrambled, frames_BHWC):
    tokenizer = scrambled(Tokenizer(tokenizer_config(image_size=size)))
    frames_BHWC = torch.from_numpy(enlarged(frames_BHWC.numpy(), size))
    tokens_BN = tokenizer.encode(frames_BHWC)
    assert tokens_BN.shape == (len(frames_BHWC), 256)
    assert tokenizer.decode(tokens_BN).shape == frames_BHWC.shape
    assert torch.isfinite(tokenizer(frames_BHWC.unsqueeze(1))[0])
    patch = size // 16
    patches_KP = tokenizer.code_patches()
    assert patches_KP.shape == (tokenizer.num_codes, 3 * patch**2)
    middle = slice(size // 2, size // 2 + patch)
    frame_HWC = tokenizer.decode(torch.full((1, 256), 37))[0]
    assert torch.equal(patches_KP[37], frame_HWC[middle, middle].flatten() / 255)
    small = Tokenizer(tokenizer_config()).state_dict()
    changed = {name for name, weight in tokenizer.state_dict().items() if weight.shape != small[name].shape}
    ends = {"encoder.1.weight", "decoder.3.weight", "decoder.3.bias"}
    assert changed == ends, "only the first layer and the last depend on the size"


def test_what_training_measures_is_what_encoding_and_decoding_give(scrambled, tokenizer, frames_BHWC):
    scrambled(tokenizer)
    _, metrics = tokenizer(frames_BHWC.unsqueeze(1))
    pixels = tokenizer._decode_pixels(tokenizer.quantizer.lookup(tokenizer.encode(frames_BHWC).view(-1, 16, 16)))
    mse = (pixels - frames_BHWC.permute(0, 3, 1, 2) / 255).square().mean()
    torch.testing.assert_close(metrics["mse"], mse, rtol=1e-4, atol=0)
    torch.testing.assert_close(metrics["psnr"], -10 * mse.log10(), rtol=1e-4, atol=0)


def test_eval_mode_changes_nothing(tokenizer, frames_BHWC):
    before = copy.deepcopy(tokenizer.state_dict())
    tokenizer(frames_BHWC.unsqueeze(1))
    assert all(torch.equal(before[name], value) for name, value in tokenizer.state_dict().items())


def test_it_learns(tokenizer, frames_BHWC, tiny_params):
    tokenizer.train()
    optimizers = make_optimizers(tokenizer, tiny_params.tokenizer.model_copy(update={"lr": 1e-2})).values()
    psnr = []
    for _ in range(40):
        loss, metrics = tokenizer(frames_BHWC.unsqueeze(1))
        tokenizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        psnr.append(metrics["psnr"].item())
    assert psnr[-1] > psnr[0] + 3

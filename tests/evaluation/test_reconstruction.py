import pytest
import torch

from genie.core.frames import psnr
from genie.evaluation.metrics import codebook_metrics, frame_mse
from genie.evaluation.reconstruction import evaluate_tokenizer
from genie.models.tokenizer import Tokenizer
from tests.configs import tokenizer_config


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(tokenizer_config(width=8, num_blocks=1)).eval()


def test_every_frame_counts_once(tokenizer, store):
    frames_BHWC = torch.from_numpy(store.read(0, store.num_frames))
    tokens_BN = tokenizer.encode(frames_BHWC)
    mse = frame_mse(tokenizer.decode(tokens_BN), frames_BHWC)
    found = evaluate_tokenizer(tokenizer, store, batch_size=10)
    assert found["psnr"] == pytest.approx(psnr(mse), rel=1e-4)
    assert found["mse"] == pytest.approx(mse.mean(), rel=1e-4)
    expected = codebook_metrics(tokens_BN.numpy(), tokenizer.num_codes)
    assert found["codebook_usage"] == pytest.approx(expected["codebook_usage"], abs=2e-3)
    assert found["codebook_perplexity"] == pytest.approx(expected["codebook_perplexity"], rel=1e-2)
    assert set(found) == {"psnr", "mse", "ssim", "codebook_usage", "codebook_perplexity"}


def test_larger_frames_are_compared_whole(larger_store):
    size = larger_store.frame_shape[0]
    tokenizer = Tokenizer(tokenizer_config(width=8, image_size=size)).eval()
    frames_BHWC = torch.from_numpy(larger_store.read(0, larger_store.num_frames))
    mse = frame_mse(tokenizer.decode(tokenizer.encode(frames_BHWC)), frames_BHWC)
    assert evaluate_tokenizer(tokenizer, larger_store)["psnr"] == pytest.approx(psnr(mse), rel=1e-4)

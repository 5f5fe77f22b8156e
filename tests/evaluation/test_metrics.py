import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from genie.core.frames import psnr
from genie.evaluation import metrics


@pytest.fixture
def frames() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(256, (2, 3, 64, 64, 3), generator=generator, dtype=torch.uint8)
    noise = torch.randint(0, 40, first.shape, generator=generator)
    return first, (first + noise).clamp(max=255).to(torch.uint8)


def test_frame_mse_agrees_with_the_slow_way(frames):
    first, second = (part.numpy().astype(np.float64) / 255 for part in frames)
    found = metrics.frame_mse(*frames)
    for index in np.ndindex(2, 3):
        assert found[index] == pytest.approx(np.mean((first[index] - second[index]) ** 2), rel=1e-5)


def test_psnr_is_that_of_the_mean_error():
    assert psnr(np.array([0.01])) == pytest.approx(20)
    assert psnr(np.array([0.02, 0.0])) == pytest.approx(20)


def test_psnr_of_equal_frames_is_finite():
    assert psnr(np.zeros(3)) == pytest.approx(100)


def test_psnr_of_nothing_says_so():
    with pytest.raises(ValueError, match="no frames to measure"):
        psnr(np.zeros(0))


def test_frame_ssim_is_that_of_each_frame_alone(frames):
    found = metrics.frame_ssim(*frames)
    for index in np.ndindex(2, 3):
        pair = [part[index].movedim(-1, 0)[None].float() / 255 for part in frames]
        assert found[index] == pytest.approx(
            structural_similarity_index_measure(*pair, data_range=1.0).item(), abs=1e-5
        )


def test_frame_ssim_is_the_same_in_parts(frames, monkeypatch):
    found = metrics.frame_ssim(*frames)
    monkeypatch.setattr(metrics, "SSIM_FRAMES", 4)
    np.testing.assert_allclose(metrics.frame_ssim(*frames), found, atol=1e-6)


def test_frame_ssim_of_equal_frames_is_one(frames):
    np.testing.assert_allclose(metrics.frame_ssim(frames[0], frames[0]), 1, atol=1e-6)


def test_codebook_metrics():
    codes = np.repeat([0, 2, 5, 7], 10).reshape(2, 20)
    assert metrics.codebook_metrics(codes, 8) == pytest.approx(
        {"codebook_usage": 0.5, "codebook_perplexity": 4.0}, rel=1e-5
    )
    collapsed = metrics.codebook_metrics(np.full(9, 3), 8)
    assert collapsed == pytest.approx({"codebook_usage": 1 / 8, "codebook_perplexity": 1.0})


def test_count_codes_keeps_those_that_never_occur():
    counts = metrics.count_codes(np.array([[0, 0], [2, 0]]), 4)
    assert counts.tolist() == [3, 0, 1, 0]
    assert metrics.min_code_share(counts) == 0
    assert metrics.min_code_share(np.array([1, 3])) == 0.25


def test_mutual_information_knows_a_renaming_from_chance():
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=20_000)
    assert metrics.normalised_mutual_information(labels, 5 - labels) == pytest.approx(1)
    assert metrics.normalised_mutual_information(labels, rng.integers(8, size=20_000)) < 0.01
    constant = np.zeros_like(labels)
    assert metrics.normalised_mutual_information(labels, constant) == 0
    assert metrics.normalised_mutual_information(constant, constant) == 0


def test_half_precision_around_it_does_not_change_ssim(frames):
    found = metrics.frame_ssim(*frames)
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(metrics.frame_ssim(*frames), found)

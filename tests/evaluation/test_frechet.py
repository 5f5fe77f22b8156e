import numpy as np
import pytest
import torch
from torch import nn

from genie.evaluation.frechet import I3D_SIZE, FrechetDistance, frechet_distance, i3d_distance, probe_distance
from genie.evaluation.rollouts import REAL, SERIES, measure_rollouts

pytestmark = pytest.mark.slow

SETTINGS = {"horizon": 5, "num_clips": 12, "seed": 0}


class MotionProbe:
    """Stand-in for the trained probe: features are how much each of 16 columns changes in a transition."""

    history = 2

    def features(self, frames_BTHWC):
        change = frames_BTHWC[:, self.history :].float() - frames_BTHWC[:, self.history - 1 : -1].float()
        return change.abs().mean(dim=(2, 4)).unflatten(-1, (16, 4)).mean(-1)


class TinyI3D(nn.Module):
    """Has the signature of the shared I3D, and asserts that its input meets that model's requirements."""

    def __init__(self, min_frames: int):
        super().__init__()
        self.min_frames = min_frames

    def forward(self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool) -> torch.Tensor:
        assert not rescale and not resize and return_features  # noqa: PT018 - TorchScript
        assert x.shape[1] == 3 and x.shape[3] == 224 and x.shape[4] == 224  # noqa: PT018
        assert x.min() >= -1 and x.max() <= 1 and x.min() < 0  # noqa: PT018
        assert x.shape[2] >= self.min_frames, "too few frames"
        return x[:, :, :, ::64, ::64].flatten(1)


@pytest.fixture
def i3d_weights(tmp_path) -> str:
    torch.jit.script(TinyI3D(min_frames=5)).save(tmp_path / "i3d.pt")
    return str(tmp_path / "i3d.pt")


def normal(rng, num: int, means, deviations) -> np.ndarray:
    return rng.normal(means, deviations, size=(num, len(means)))


def slow_frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Computes the distance by its formula, from the eigenvalues of the product of the covariances."""
    covariances = [np.cov(vectors, rowvar=False) for vectors in (first, second)]
    root = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).astype(complex)).real.sum()
    mean_gap = np.sum((first.mean(axis=0) - second.mean(axis=0)) ** 2)
    return mean_gap + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * root


def test_distance_of_gaussians_with_diagonal_covariances():
    rng = np.random.default_rng(0)
    means, deviations = np.array([[0, 1, 2], [1, -1, 2]]), np.array([[1, 2, 0.5], [3, 1, 0.5]])
    closed_form = np.sum((means[0] - means[1]) ** 2) + np.sum((deviations[0] - deviations[1]) ** 2)
    sets = [normal(rng, 200_000, *moments) for moments in zip(means, deviations, strict=True)]
    assert frechet_distance(*sets) == pytest.approx(closed_form, rel=0.01)


def test_distance_of_sets_with_known_moments_is_exact():
    corners = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])  # covariance 4/3 of the identity
    moved = corners * [2, 3] + [5, 0]
    assert frechet_distance(corners, moved) == pytest.approx(25 + 4 / 3 * (1**2 + 2**2))


def test_distance_agrees_with_the_slow_way_and_is_symmetric():
    rng = np.random.default_rng(1)
    first, second = (rng.normal(size=(90, 7)) @ rng.normal(size=(7, 7)) + rng.normal(size=7) for _ in range(2))
    assert frechet_distance(first, second) == pytest.approx(slow_frechet_distance(first, second))
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))
    assert frechet_distance(first.reshape(9, 10, 7), second) == pytest.approx(frechet_distance(first, second))


@pytest.mark.parametrize("num", [5, 50])  # fewer vectors than dimensions, and more
def test_distance_of_a_set_from_itself_is_zero(num):
    vectors = np.random.default_rng(2).normal(size=(num, 12)).astype(np.float32)
    assert frechet_distance(vectors, vectors[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(vectors, vectors + 1) == pytest.approx(12, rel=1e-5)


def test_a_distance_needs_two_vectors():
    with pytest.raises(ValueError, match=r"raise evaluate\.num_clips"):
        frechet_distance(np.zeros((1, 3)), np.zeros((2, 3)))


def test_a_distance_of_too_few_clips_is_left_out(capsys):
    distance = FrechetDistance("frechet_probe", lambda frames: frames[:, 0, 0, 0, :].float(), 1)
    for series in ("real", "imagined", "random_action", "copy_last", "tokenizer"):
        distance(series, torch.zeros(3, 1, 64, 64, 3, dtype=torch.uint8))
    assert distance.metrics() == {}
    assert capsys.readouterr().err == "frechet_probe is left out: 3 clips are too few; raise evaluate.num_clips\n"


def test_a_dream_that_is_real_is_at_no_distance(obedient_world, store, latent_actions):
    distance = probe_distance(MotionProbe(), SETTINGS["horizon"])
    measure_rollouts(obedient_world, store, latent_actions, **SETTINGS, watchers=[distance])
    metrics = distance.metrics()
    assert set(metrics) == {"frechet_probe_real", *(f"frechet_probe{suffix}" for suffix in SERIES.values())}
    assert metrics["frechet_probe"] == metrics["frechet_probe_tokenizer"] == pytest.approx(0, abs=1e-6)
    assert min(metrics["frechet_probe_random_action"], metrics["frechet_probe_copy_last"]) > 1
    assert metrics["frechet_probe_real"] > 1


def test_a_world_that_stands_still_is_where_copies_are(still_world, store, latent_actions):
    distance = probe_distance(MotionProbe(), SETTINGS["horizon"])
    measure_rollouts(still_world, store, latent_actions, **SETTINGS, watchers=[distance])
    metrics = distance.metrics()
    assert metrics["frechet_probe"] == metrics["frechet_probe_copy_last"] == metrics["frechet_probe_random_action"] > 1


def test_batches_change_no_distance(obedient_world, store, latent_actions):
    found = []
    for batch_size in (5, 12):
        distance = probe_distance(MotionProbe(), SETTINGS["horizon"])
        settings = {**SETTINGS, "batch_size": batch_size}
        measure_rollouts(obedient_world, store, latent_actions, **settings, watchers=[distance])
        found.append(distance.metrics())
    assert found[0] == pytest.approx(found[1])


def test_features_see_the_last_frames_of_the_series_asked_for():
    shapes = []

    def features(frames_BTHWC):
        shapes.append(tuple(frames_BTHWC.shape))
        assert not torch.is_grad_enabled()
        return frames_BTHWC[:, :, 0, 0, :2].flatten(0, 1).float()

    distance = FrechetDistance("name", features, num_frames=3, series=["copy_last"])
    clips_BTHWC = torch.randint(256, (4, 7, 8, 8, 3), dtype=torch.uint8)
    for series in (REAL, *SERIES):
        distance(series, clips_BTHWC)
    assert shapes == [(4, 3, 8, 8, 3)] * 2
    seen = clips_BTHWC[:, -3:, 0, 0, :2].numpy()
    assert distance.metrics() == {
        "name_copy_last": pytest.approx(0, abs=1e-6),
        "name_real": pytest.approx(frechet_distance(seen[:2], seen[2:])),
    }


def test_fvd_of_dreams_and_copies(i3d_weights, obedient_world, store, latent_actions):
    distance = i3d_distance(i3d_weights, SETTINGS["horizon"])
    measure_rollouts(obedient_world, store, latent_actions, **SETTINGS, watchers=[distance])
    metrics = distance.metrics()
    assert set(metrics) == {"fvd", "fvd_copy_last", "fvd_real"}
    assert metrics["fvd"] == pytest.approx(0, abs=1e-6)
    assert metrics["fvd_copy_last"] > 1


def test_i3d_sees_the_frames_in_its_own_range_and_size(i3d_weights):
    frames_BTHWC = torch.randint(256, (2, 5, 1, 1, 3), dtype=torch.uint8).expand(-1, -1, 64, 64, -1)
    features = i3d_distance(i3d_weights, 5).features(frames_BTHWC)
    samples = len(range(0, I3D_SIZE, 64)) ** 2
    expected = (frames_BTHWC[:, :, 0, 0] / 127.5 - 1).movedim(-1, 1)[..., None].expand(-1, -1, -1, samples)
    torch.testing.assert_close(features, expected.flatten(1))


@pytest.mark.parametrize("fault", ["missing", "truncated", "pickled", "another network", "too few frames"])
def test_a_file_that_is_no_i3d_is_one_clear_line(fault, i3d_weights, tmp_path):
    horizon = 4 if fault == "too few frames" else 5
    if fault == "missing":
        i3d_weights += ".old"
    elif fault == "truncated":
        with open(i3d_weights, "r+b") as file:
            file.truncate(500)
    elif fault == "pickled":
        torch.save({"weights": torch.zeros(3)}, i3d_weights)
    elif fault == "another network":
        torch.jit.script(nn.Linear(2, 2)).save(i3d_weights)
    with pytest.raises(ValueError, match=rf"^evaluate\.i3d_weights: {i3d_weights}.*i3d_torchscript\.pt.*null") as error:
        i3d_distance(i3d_weights, horizon)
    assert "\n" not in str(error.value)

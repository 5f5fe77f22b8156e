"""How far dreamed clips are, as a set, from real ones: the Fréchet distance in a network's feature space.

Legend: `B` clips of a batch, `T` frames, `H W C` pixels, `M` feature vectors, `D` their width, `...` leading axes.
"""

from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from genie.evaluation.rollouts import REAL, SERIES

Features = Callable[[torch.Tensor], torch.Tensor]  # `(B, T, H, W, C)` uint8 -> `(M, D)`, as many a clip

I3D_SIZE = 224  # pixels a side


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians that fit two sets of vectors `(..., D)`, in float64.

    |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2) (FID, arXiv 1706.08500, section 2). With S = R^T R from a QR
    decomposition the last trace is the nuclear norm of R1 R2^T, which needs no square root of a matrix and holds for
    fewer vectors than dimensions too. Small sets are biased upwards: compare only sets of equal size.

    Raises:
        ValueError: a set has fewer than two vectors.
    """
    sets_MD = [vectors.reshape(-1, vectors.shape[-1]).astype(np.float64) for vectors in (first, second)]
    if min(map(len, sets_MD)) < 2:
        raise ValueError("a Fréchet distance needs two clips or more on each side: raise evaluate.num_clips")
    means = [vectors.mean(axis=0) for vectors in sets_MD]
    root1, root2 = (
        np.linalg.qr((vectors - mean) / np.sqrt(len(vectors) - 1), mode="r")
        for vectors, mean in zip(sets_MD, means, strict=True)
    )
    traces = np.sum(root1**2) + np.sum(root2**2) - 2 * np.linalg.norm(root1 @ root2.T, "nuc")
    return float(np.sum((means[0] - means[1]) ** 2) + max(traces, 0.0))


class FrechetDistance:
    """Watches rollouts, keeps the features of their clips and not the frames, then tells the distances.

    Args:
        name: of the metric.
        features: of a batch of clips.
        num_frames: a clip's last frames, which features see.
        series: those of `SERIES` to compare with what really happened.
    """

    def __init__(self, name: str, features: Features, num_frames: int, series: Iterable[str] = SERIES):
        self.name = name
        self.features = features
        self.num_frames = num_frames
        self._batches = {each: [] for each in (REAL, *series)}

    @torch.no_grad()
    def __call__(self, series: str, frames_BTHWC: torch.Tensor) -> None:
        """Takes clips of a series."""
        if series not in self._batches:
            return
        # A covariance is made of small differences, noise in half precision.
        with torch.autocast(frames_BTHWC.device.type, enabled=False):
            features_MD = self.features(frames_BTHWC[:, -self.num_frames :])
        self._batches[series].append(features_MD.unflatten(0, (len(frames_BTHWC), -1)).cpu().numpy())

    def metrics(self) -> dict[str, float]:
        """`<name>` of the dream, then with each series' suffix; as `<name>_real` the first half of the real clips
        against the second, what chance alone makes of half as many clips, of other levels.

        The other distances are to the real clips that the dreams began as, and may be below that.

        Raises:
            ValueError: too few clips.
        """
        clips = {series: np.concatenate(batches) for series, batches in self._batches.items()}
        real = clips.pop(REAL)
        metrics = {f"{self.name}_real": frechet_distance(*np.array_split(real, 2))}
        return metrics | {
            f"{self.name}{SERIES[series]}": frechet_distance(real, shown) for series, shown in clips.items()
        }


def probe_distance(probe, horizon: int) -> FrechetDistance:
    """`frechet_probe`: in the features by which the supervised probe tells actions, one vector a transition.

    It asks whether dreams move as CoinRun does, and needs no network from elsewhere.

    Args:
        probe: `probe.features(frames_BTHWC)` is `(B, T - history, D)`, `probe.history` the frames before each next one.
        horizon: frames dreamed; so each transition that leads to one counts.
    """
    return FrechetDistance(
        "frechet_probe",
        lambda frames_BTHWC: probe.features(frames_BTHWC).flatten(0, 1),
        probe.history + horizon,
    )


def i3d_distance(weights: str, horizon: int, device: torch.device | str = "cpu") -> FrechetDistance:
    """`fvd`, the Fréchet Video Distance (arXiv 1812.01717) of the dreamed frames.

    Args:
        weights: the I3D trained on Kinetics-400 that is shared as `i3d_torchscript.pt`.
        horizon: frames dreamed.
        device: where to compute.

    Raises:
        ValueError: the file is missing, damaged, no such network, or the horizon is too short for it.
    """
    try:
        features = partial(_i3d_features, torch.jit.load(weights, map_location=device).eval())
        with torch.no_grad():
            features(torch.zeros(1, horizon, 64, 64, 3, dtype=torch.uint8, device=device))
    except (OSError, ValueError, RuntimeError, torch.jit.Error) as error:
        cause = str(error).strip().splitlines()[-1]
        raise ValueError(
            f"evaluate.i3d_weights: {weights} is no I3D for clips of {horizon} frames ({cause}); "
            "give the path of i3d_torchscript.pt and an evaluate.horizon of 10 or more, or null to go without"
        ) from None
    return FrechetDistance("fvd", features, horizon, ("imagined", "copy_last"))


def _i3d_features(network: torch.jit.ScriptModule, frames_BTHWC: torch.Tensor) -> torch.Tensor:
    """`(B, 400)`, clip by clip: at 224 pixels a side a batch would fill the memory."""
    features = []
    for frames_TCHW in frames_BTHWC.movedim(-1, 2):
        frames_TCHW = F.interpolate(frames_TCHW / 127.5 - 1, (I3D_SIZE, I3D_SIZE), mode="bilinear")
        video_1CTHW = frames_TCHW.movedim(1, 0)[None]
        features.append(network(video_1CTHW, rescale=False, resize=False, return_features=True))
    return torch.cat(features)

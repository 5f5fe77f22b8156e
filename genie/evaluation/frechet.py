"""Fréchet distance between sets of dreamed and real clips, in a network's feature space.

Legend: `B` clips of a batch, `T` frames, `H W C` pixels, `M` feature vectors, `D` their width, `...` leading axes.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F

from genie.evaluation.rollouts import REAL, SERIES

if TYPE_CHECKING:
    from genie.models.probe import ActionProbe

Features = Callable[[torch.Tensor], torch.Tensor]  # `(B, T, H, W, C)` uint8 -> `(M, D)`, M / B vectors per clip

I3D_SIZE = 224  # pixels a side


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance of Gaussians fitted to two sets of vectors `(..., D)`, in float64.

    It is |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2) (FID, arXiv 1706.08500, section 2). With S = R^T R from a QR
    decomposition, the last trace is the nuclear norm of R1 R2^T. This needs no matrix square root and also holds for
    fewer vectors than dimensions. Small sets are biased upwards: compare only sets of equal size.

    Raises:
        ValueError: if a set has fewer than two vectors.
    """
    sets_MD = [vectors.reshape(-1, vectors.shape[-1]).astype(np.float64) for vectors in (first, second)]
    if min(map(len, sets_MD)) < 2:
        raise ValueError("a Fréchet distance needs two clips or more on each side: raise evaluate.num_clips")
    means = [vectors.mean(axis=0) for vectors in sets_MD]
    root1, root2 = (
        cast(np.ndarray, np.linalg.qr((vectors - mean) / np.sqrt(len(vectors) - 1), mode="r"))
        for vectors, mean in zip(sets_MD, means, strict=True)
    )
    traces = np.sum(root1**2) + np.sum(root2**2) - 2 * np.linalg.norm(root1 @ root2.T, "nuc")
    return float(np.sum((means[0] - means[1]) ** 2) + max(traces, 0.0))


MIN_VECTORS = 4  # two on each side of the real clips' halves


class FrechetDistance:
    """Watcher of rollouts that collects features of clips, not their frames, and computes the distances.

    Args:
        name: name of the metric.
        features: computes the features of a batch of clips.
        num_frames: number of last frames of a clip from which features are computed.
        series: the members of `SERIES` to compare with the real clips.
    """

    def __init__(self, name: str, features: Features, num_frames: int, series: Iterable[str] = SERIES):
        self.name = name
        self.features = features
        self.num_frames = num_frames
        self._batches = {each: [] for each in (REAL, *series)}

    @torch.no_grad()
    def __call__(self, series: str, frames_BTHWC: torch.Tensor) -> None:
        """Collects the features of clips of a series."""
        if series not in self._batches:
            return
        # Covariances are computed from small differences, which are noise in half precision.
        with torch.autocast(frames_BTHWC.device.type, enabled=False):
            features_MD = self.features(frames_BTHWC[:, -self.num_frames :])
        self._batches[series].append(features_MD.unflatten(0, (len(frames_BTHWC), -1)).cpu().numpy())

    def metrics(self) -> dict[str, float]:
        """Returns the distance of each series from the real clips, as `<name>` plus the series' suffix.

        `<name>_real` compares the first half of the real clips with the second: the distance by chance alone, for half
        as many clips, of different levels. The other distances are from the real clips with the same start as the
        dreams, so they may be lower. If there are too few clips, the result is empty and one line goes to stderr.
        """
        clips = {series: np.concatenate(batches) for series, batches in self._batches.items()}
        real = clips.pop(REAL)
        if len(real) < MIN_VECTORS:
            print(f"{self.name} is left out: {len(real)} clips are too few; raise evaluate.num_clips", file=sys.stderr)
            return {}
        metrics = {f"{self.name}_real": frechet_distance(*np.array_split(real, 2))}
        return metrics | {
            f"{self.name}{SERIES[series]}": frechet_distance(real, shown) for series, shown in clips.items()
        }


def probe_distance(probe, horizon: int) -> FrechetDistance:
    """Builds the metric `frechet_probe`: the distance in features of the supervised probe, one vector per transition.

    It measures whether dreams move as CoinRun does, and needs no external network.

    Args:
        probe: has `features(frames_BTHWC)`, `(B, T - history, D)`, and `history`, the frames before each next frame.
        horizon: number of dreamed frames; every transition that leads to a dreamed frame counts.
    """
    return FrechetDistance(
        "frechet_probe",
        lambda frames_BTHWC: probe.features(frames_BTHWC).flatten(0, 1),
        probe.history + horizon,
    )


def distances_of(
    probe: "ActionProbe | None", i3d_weights: str | None, horizon: int, device: torch.device | str
) -> list[FrechetDistance]:
    """The distances that can be measured: `probe_distance` if there is a probe, `i3d_distance` if there are weights."""
    distances = [] if probe is None else [probe_distance(probe, horizon)]
    return distances + ([i3d_distance(i3d_weights, horizon, device)] if i3d_weights else [])


def i3d_distance(weights: str, horizon: int, device: torch.device | str = "cpu") -> FrechetDistance:
    """Builds the metric `fvd`, the Fréchet Video Distance (arXiv 1812.01717) of the dreamed frames.

    Args:
        weights: path of the I3D trained on Kinetics-400, distributed as `i3d_torchscript.pt`.
        horizon: number of dreamed frames.
        device: device on which the I3D runs.

    Raises:
        ValueError: if the file is missing, damaged or another network, or if the horizon is too short for I3D.
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
    """Computes features `(B, 400)`, one clip at a time: at 224 pixels a side, a batch would fill the memory."""
    features = []
    for frames_TCHW in frames_BTHWC.movedim(-1, 2):
        frames_TCHW = F.interpolate(frames_TCHW / 127.5 - 1, (I3D_SIZE, I3D_SIZE), mode="bilinear")
        video_1CTHW = frames_TCHW.movedim(1, 0)[None]
        features.append(network(video_1CTHW, rescale=False, resize=False, return_features=True))
    return torch.cat(features)
